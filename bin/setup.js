// Makes a clone ready to run: installs the packages, then builds, each only if it is missing or out of date.
// Runs before `npm test` and `npm run quickstart`, so it uses nothing but Node. (They call it themselves: where installation
// scripts are switched off, npm runs no pre-scripts.)
import { existsSync, readdirSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { spawnNpm } from '../src/engine/native/npm.js';
import { buildEngines } from './engines.js';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const INSTALLED = 'node_modules/.package-lock.json'; // npm writes it at the end of an installation
const BUILT = 'dist/.built';
const SOURCES = ['src', 'tsconfig.json', 'tsconfig.build.json', INSTALLED];

/** Time of the latest change of a file, or of anything in a folder; 0 if there is none. */
function changed(name) {
  const path = join(root, name);
  if (!existsSync(path)) return 0;
  const info = statSync(path);
  if (!info.isDirectory()) return info.mtimeMs;
  return Math.max(info.mtimeMs, ...readdirSync(path).map((entry) => changed(join(name, entry))));
}

/** Runs npm, silently unless it fails; then ends this process with npm's exit code. */
function npm(...args) {
  const result = spawnNpm(args, root);
  if (result.status === 0) return;
  process.stderr.write(`${result.stdout ?? ''}${result.stderr ?? ''}`);
  console.error(`setup: npm ${args.join(' ')} failed${result.error ? `: ${result.error.message}` : ''}`);
  process.exit(result.status || 1);
}

/** Marks `name` as newer than its `sources`, even if the clock runs behind them. */
function mark(name, sources) {
  const path = join(root, name);
  if (!existsSync(path)) writeFileSync(path, '');
  const time = new Date(Math.max(Date.now(), ...sources.map(changed)) + 1);
  utimesSync(path, time, time);
}

function update(name, sources, message, run) {
  const done = changed(name);
  if (done > 0 && sources.every((source) => changed(source) <= done)) return;
  console.log(`setup: ${message}`);
  run();
  mark(name, sources);
}

// No package needs its installation script here, and those of tfjs-node would download a TensorFlow of hundreds of megabytes.
update(INSTALLED, ['package-lock.json'], 'installing packages (npm ci), which takes a minute or two', () =>
  npm('ci', '--no-audit', '--no-fund', '--ignore-scripts'),
);
update(BUILT, SOURCES, 'building (npm run build)', () => npm('run', 'build'));
buildEngines();
