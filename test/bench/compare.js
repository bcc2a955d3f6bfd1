// Times alitok and its peers in turn, and prints the ratios peer/alitok of wall-clock time and of processor time, which with
// --threads 1 (no thread waits for another) is meaningful on a busy machine too. Each of them is set up and warmed up once per
// case, and waits while another one runs; the result is the median of the rounds. Peers are eager and compiled PyTorch (peer.py),
// other engines of alitok (`--peers libtorch,wasm`), and engines of another checkout that is built (`--peers tensorflow@../before`).
//   node test/bench/compare.js [case:batch[:codes] ...] [--rounds 3] [--threads 2] [--engine libtorch] [--device cpu]
//     [--precision bf16] [--tf32] [--weights int8] [--peers eager,compiled] [--python python3] [--raw FILE]
import { spawn } from 'node:child_process';
import { appendFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const path = (name) => fileURLToPath(new URL(name, import.meta.url));
const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    threads: { type: 'string', default: '2' },
    engine: { type: 'string', default: 'libtorch' },
    rounds: { type: 'string', default: '3' },
    python: { type: 'string', default: 'python3' },
    device: { type: 'string', default: 'cpu' },
    precision: { type: 'string', default: 'float32' },
    tf32: { type: 'boolean', default: false },
    weights: { type: 'string', default: 'float32' },
    peers: { type: 'string', default: 'eager,compiled' },
    raw: { type: 'string' },
  },
});
const { engine, device, precision, tf32, weights, python } = options;
const threads = Number(options.threads);
const cases =
  positionals.length > 0 ? positionals : ['sample:1:32', 'sample:8:16', 'encode:1', 'decode:1', 'train:2'];

const ours = { engine, device, precision, tf32, weights, threads };
const peer = ['--paced', '--threads', options.threads, '--device', device];
if (precision === 'bf16') peer.push('--bf16');
if (tf32) peer.push('--tf32');

/** The command that runs a case of alitok with an engine, in this checkout or another. */
const oursWith =
  (options, folder = path('../..')) =>
  (name) => [
    process.execPath,
    join(folder, 'test/bench/ours.js'),
    name,
    path('../../configs/alitok_b.yaml'),
    JSON.stringify(options),
  ];

function commandOf(who) {
  if (who === 'eager') return (name) => [python, path('peer.py'), name, ...peer];
  if (who === 'compiled') return (name) => [python, path('peer.py'), name, ...peer, '--compile'];
  const [other, folder] = who.split('@');
  return oursWith({ ...ours, engine: other }, folder);
}

const peers = options.peers.split(',').map((who) => [who, commandOf(who)]);
const COMMANDS = { alitok: oursWith(ours), ...Object.fromEntries(peers) };

/** A program that runs its case once per request. */
function start([file, ...args]) {
  const child = spawn(file, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const read = async () => {
    const { value, done } = await lines.next();
    if (done) throw new Error(`${[file, ...args].join(' ')} ended`);
    const result = JSON.parse(value);
    if (result.error) throw new Error(result.error);
    return result;
  };
  return {
    ready: read(),
    run() {
      child.stdin.write('\n');
      return read();
    },
    end: () => child.stdin.end(),
  };
}

const median = (numbers) => [...numbers].sort((a, b) => a - b)[numbers.length >> 1];
const began = performance.now();
let own = 0;

for (const name of cases) {
  const programs = Object.entries(COMMANDS).map(([who, command]) => ({
    who,
    program: start(command(name)),
    times: [],
    used: [],
  }));
  try {
    await Promise.all(programs.map(({ program }) => program.ready));
    for (let round = 0; round < Number(options.rounds); round++)
      for (const { who, program, times, used } of programs) {
        const result = await program.run();
        times.push(result.seconds);
        used.push(result.processor_seconds);
        own += result.seconds;
        if (options.raw) appendFileSync(options.raw, `${JSON.stringify({ case: name, who, ...result })}\n`);
      }
    const [{ times, used }, ...others] = programs;
    const ratios = others.map(
      (other) =>
        `${other.who} ${median(other.times).toFixed(3)} s, ratio ${(median(other.times) / median(times)).toFixed(2)} (of processor time ${(median(other.used) / median(used)).toFixed(2)})`,
    );
    const images = Number(name.split(':')[1] ?? 1) / median(times);
    console.log(
      `${name.padEnd(12)} alitok ${median(times).toFixed(3)} s (${images.toPrecision(3)} images/s)   ${ratios.join('   ')}`,
    );
  } catch (error) {
    console.log(`${name.padEnd(12)} failed: ${error.message}`);
    process.exitCode = 1;
  }
  for (const { program } of programs) program.end();
}
const all = (performance.now() - began) / 1000;
console.log(`${all.toFixed(0)} s in all, ${own.toFixed(0)} s of them timed`);
