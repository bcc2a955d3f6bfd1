// What benchmarks of whole commands share: they run the program and print times and peak memory.
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const BINARY = fileURLToPath(new URL('../../bin/alitok.js', import.meta.url));

export const seconds = (began) => `${((performance.now() - began) / 1000).toFixed(1)} s`;
export const report = (what, result) => console.log(`${what.padEnd(60)} ${result}`);

/** Runs the program and prints its time and its peak resident memory, under `title` or its command's name. */
export async function alitok(args, title = `alitok ${args[0]}`) {
  const began = performance.now();
  const child = spawn(process.execPath, [BINARY, ...args], { stdio: ['ignore', 'inherit', 'inherit'] });
  let peak = '';
  const poll = setInterval(() => {
    try {
      peak = /VmHWM:\s*(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1] ?? peak;
    } catch {
      // It has ended.
    }
  }, 50);
  const code = await new Promise((resolve) => child.on('close', resolve));
  clearInterval(poll);
  if (code !== 0) throw new Error(`alitok ${args.join(' ')} ended with ${code}`);
  report(title, `${seconds(began)}, peak ${(Number(peak) / 2 ** 20).toFixed(2)} GiB`);
}
