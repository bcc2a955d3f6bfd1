import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { canRun } from '../../support/engines.js';

const DIST = fileURLToPath(new URL('../../../dist/engine', import.meta.url));

/** Linear layers and convolutions of many shapes, with their gradients. */
const PROGRAM = `
import * as tf from '@tensorflow/tfjs';
import { openEngine } from ${JSON.stringify(join(DIST, 'index.js'))};
import { frozenConv2d, linear } from ${JSON.stringify(join(DIST, 'ops/index.js'))};
await openEngine('tensorflow');
for (let i = 0; i < 120; i++)
  tf.tidy(() => {
    const [rows, width, outputs] = [1 + ((i * 37) % 300), 1 + ((i * 101) % 400), 1 + ((i * 53) % 300)];
    const [x, weight] = [tf.ones([rows, width]), tf.ones([outputs, width])];
    const [dx] = tf.grads((x, w) => linear(x, w).sum())([x, weight]);
    if (dx.dataSync()[0] !== outputs) throw new Error('wrong gradient');
    frozenConv2d(tf.ones([1, 12, 12, 1 + (i % 40)]), tf.ones([outputs, 1 + (i % 40), 3, 3]), tf.zeros([outputs]));
  });
console.log('done');
`;

it.runIf(canRun('tensorflow'))('computing is not disturbed by signals', () => {
  const folder = mkdtempSync(join(tmpdir(), 'alitok-signals-'));
  // A profiler's signals come to the computing thread, as Ctrl-C does, but thousands of times.
  const flags = ['--cpu-prof', '--cpu-prof-interval=60', `--cpu-prof-dir=${folder}`, '--input-type=module'];
  const cwd = fileURLToPath(new URL('../../..', import.meta.url));
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, [...flags, '-e', PROGRAM], {
    cwd,
    encoding: 'utf8',
  });
  rmSync(folder, { recursive: true });
  expect({ status, signal, stdout }, stderr).toEqual({ status: 0, signal: null, stdout: 'done\n' });
});
