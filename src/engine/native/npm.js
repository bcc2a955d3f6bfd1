// Runs npm. Uses only Node.js.
import { spawnSync } from 'node:child_process';

/** Runs npm in a folder, silently, and returns the finished process with its output. */
export function spawnNpm(args, cwd) {
  const { npm_execpath: script = '' } = process.env; // set where npm runs this
  return script.endsWith('npm-cli.js')
    ? spawnSync(process.execPath, [script, ...args], { cwd, encoding: 'utf8' })
    : spawnSync('npm', args, { cwd, encoding: 'utf8', shell: process.platform === 'win32' });
}
