// Measures how much faster two processes are than one, each with one thread: `node test/bench/processes.js FOLDER`, where
// FOLDER holds the training images of CIFAR-10 in class folders. Rates are the final ones of the progress lines, the
// better of two rounds in which one and two processes take turns.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const [data] = process.argv.slice(2);
const root = fileURLToPath(new URL('../..', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'processes-'));
const at = (name) => join(folder, name);
const CONFIG = ['-c', join(root, 'configs/cifar10.yaml')];
const IMAGES_A_CLASS = 200;

function alitok(...args) {
  const words = [join(root, 'bin/alitok.js'), '--engine', 'libtorch', '--threads', '1', ...args];
  const { status, stderr } = spawnSync(process.execPath, words, { encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
  return stderr;
}

/** Units per second in the last progress line. */
const rateOf = (log) => Number([...log.matchAll(/\| (\S+) \w+\/s \|/g)].at(-1)[1]);

const classes = readdirSync(data);
const list = classes.flatMap((name) =>
  readdirSync(join(data, name))
    .slice(0, IMAGES_A_CLASS)
    .map((file) => `${name}/${file}`),
);
writeFileSync(at('list.txt'), list.join('\n'));
const phases = (stage) => `tokenizer_training.stage${stage}.phases=[{steps: 1, lr: 1.0e-3}]`;
alitok(
  ...['train-tokenizer', ...CONFIG, '-d', data, '-r', at('tokenizer'), '--stage', '1', phases(1)],
  'tokenizer_training.warmup_steps=0',
);
const tokenizer = ['--tokenizer', at('tokenizer')];
const images = ['-d', data, '--list', at('list.txt')];
alitok('tokenize', ...CONFIG, ...tokenizer, ...images, '-o', at('tokens'));
const train = ['train-ar', ...CONFIG, '--tokens', at('tokens')];
alitok(...train, '-r', at('generator'), 'generator_training.steps=1', 'generator_training.warmup_steps=0');

const cases = {
  tokenize: (out) => ['tokenize', ...CONFIG, ...tokenizer, ...images, '-o', out],
  sample: (out) => ['sample', '-g', at('generator'), ...tokenizer, '--count', '200', '--npz-only', '-o', out],
  'train the generator': (out) => [
    ...[...train, '-r', out, 'generator_training.steps=40', 'generator_training.batch_size=32'],
    ...['generator_training.warmup_steps=0', 'logging.metrics_every=40'],
  ],
};
for (const [name, words] of Object.entries(cases)) {
  const best = { 1: 0, 2: 0 };
  for (const round of [1, 2])
    for (const processes of [1, 2]) {
      const launch = processes === 1 ? [] : ['launch', '-p', String(processes), '--'];
      const log = alitok(...launch, ...words(at(`${name} ${round} ${processes}`)));
      best[processes] = Math.max(best[processes], rateOf(log));
    }
  console.log(`${name.padEnd(20)} ${(best[2] / best[1]).toFixed(2)} times the rate with 2 processes`);
}
rmSync(folder, { recursive: true });
