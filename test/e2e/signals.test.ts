import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { beforeAll, describe, expect, it } from 'vitest';
import { writeNpz } from '../../src/formats/npz.js';
import {
  type Running,
  start,
  succeed,
  TINY,
  TINY_VALUES,
  temporaryFolder,
  tinyRun,
  useOneThread,
} from './alitok.js';

const at = await temporaryFolder();
useOneThread();
const models = ['-g', at('generator'), '--tokenizer', at('tokenizer')];
const features = ['--features', at('features')];

beforeAll(async () => {
  await tinyRun(at());
  await succeed('train-ar', '-c', TINY, '--tokens', at('tokens.safetensors'), '-r', at('generator'));
  await succeed('train-features', '-c', TINY, '-d', at('train'), '-r', at('features'));
  // Enough images for precision and recall to take minutes.
  const count = 12_000;
  await writeNpz(at('many.npz'), [
    {
      name: 'arr_0',
      dtype: 'u1',
      shape: [count, 16, 16, 3],
      data: Uint8Array.from({ length: count * 768 }, (_, i) => (i * 2654435761) >>> 24),
    },
  ]);
});

/** Waits until the program prints something, or creates a file. */
async function until({ child }: Running, what: RegExp | string): Promise<void> {
  let said = '';
  child.stderr!.on('data', (text: string) => {
    said += text;
  });
  const begun = Date.now();
  while (typeof what === 'string' ? !existsSync(what) : !what.test(said)) {
    if (child.exitCode !== null || Date.now() - begun > 60_000)
      throw new Error(`it never comes to ${what}:\n${said}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Sends Ctrl-C and returns how long the program kept running, in milliseconds. */
async function interrupt({ child, outcome }: Running) {
  const sent = Date.now();
  child.kill('SIGINT');
  const { code, stderr } = await outcome;
  return { code, stderr, took: Date.now() - sent };
}

describe('Ctrl-C', () => {
  const evaluation = ['--reference', at('many.npz'), ...features];

  it('while eval generation samples keeps the finished images', async () => {
    const running = start(
      ...['eval', 'generation', ...models, '--samples', at('sampling'), '--count', '4000', ...evaluation],
    );
    await until(running, at('sampling/partial/job.json'));
    const { code, stderr } = await interrupt(running);
    expect(code, stderr).toBe(130);
    expect(stderr).toMatch(
      /stopped after \d+ images, which are kept in .*sampling; run the same command again to resume/,
    );
    expect(await readdir(at('sampling'))).toEqual(['partial']);
  });

  it.each([
    ['features', /reference.*images \|/],
    ['precision and recall', /precision and recall/],
  ])('ends it at once while it computes %s of what it has sampled', async (_, stage) => {
    const samples = at('sampled');
    const running = start(
      ...['eval', 'generation', ...models, '--samples', samples, '--count', '12', ...evaluation],
    );
    await until(running, stage);
    const { code, took, stderr } = await interrupt(running);
    expect(code, stderr).toBeNull(); // ended by the signal itself
    expect(took).toBeLessThan(2000);
    expect((await readdir(samples)).sort()).toEqual(['samples.json', 'samples.npz']);
  });

  it('ends quickstart in any step, and the next quickstart replaces its folder', async () => {
    for (const step of [/1\/7/, /3\/7/, /7\/7/, /1\/7/]) {
      const running = start('quickstart', '-o', at('quickstart'), ...TINY_VALUES);
      await until(running, step);
      const { code, stderr } = await interrupt(running);
      expect([null, 130], stderr).toContain(code);
    }
  });
});
