import { cp, readdir, readFile, rm } from 'node:fs/promises';
import { beforeAll, describe, expect, it } from 'vitest';
import { openNpz } from '../../src/formats/npz.js';
import { openTokenCache } from '../../src/tokens/cache.js';
import { canRun } from '../support/engines.js';
import { succeed, TINY, temporaryFolder, tinyRun } from './alitok.js';

// Every step from pictures to samples on the tensorflow engine. What the models compute is tested elsewhere (test/golden);
// here whole commands are compared with the wasm engine's.

const at = await temporaryFolder();
const on = (engine: string) => (command: string, more: string[]) =>
  succeed('--engine', engine, command, ...more);
const [tensorflow, wasm] = [on('tensorflow'), on('wasm')];

const train = ['-c', TINY, '-d', at('train'), '--validation', at('train')];
const generator = (run: string, ...more: string[]) => [
  ...['-c', TINY, '--tokens', at('tokens.safetensors'), '--tokenizer', at('tokenizer')],
  ...['-r', at(run), ...more],
];

async function losses(run: string): Promise<number[]> {
  const lines = (await readFile(at(run, 'metrics.jsonl'), 'utf8')).trim().split('\n');
  return lines.map((line) => JSON.parse(line).loss as number).filter((loss) => loss !== undefined);
}

/** The codes of all images and crops of a token cache. */
async function codes(name: string): Promise<number[]> {
  const cache = await openTokenCache(at(`${name}.safetensors`));
  const { images, crops, tokens } = cache;
  const all = new Int32Array(images * crops * tokens);
  for (let i = 0; i < images * crops; i++)
    await cache.read(Math.floor(i / crops), i % crops, all, i * tokens);
  await cache.close();
  expect(new Set(all).size).toBeGreaterThan(1);
  return [...all];
}

const model = (run: string) => readFile(at(run, 'checkpoints', 'step-0000006', 'model.safetensors'));

/** Expects numbers that agree to rounding, which some steps of training have made larger. */
function expectAgreement(found: number[], expected: number[], tolerance = 1e-3): void {
  expect(found.length).toBe(expected.length);
  found.forEach((x, i) => {
    expect(Math.abs(x / expected[i] - 1), `${x} for ${expected[i]}`).toBeLessThan(tolerance);
  });
}

describe.skipIf(!canRun('tensorflow'))('the pipeline on tensorflow', () => {
  beforeAll(async () => {
    await tinyRun(at()); // on wasm
    await wasm('train-ar', generator('generator'));
  });

  it('trains a tokenizer of both stages as wasm does', async () => {
    await tensorflow('train-tokenizer', [...train, '-r', at('own-tokenizer')]);
    for (const stage of ['stage1', 'stage2']) {
      const expected = await losses(`tokenizer/${stage}`);
      expect(expected).toHaveLength(3);
      expectAgreement(await losses(`own-tokenizer/${stage}`), expected);
    }
    const { starts } = JSON.parse(await readFile(at('own-tokenizer', 'stage1', 'run.json'), 'utf8'));
    expect(starts[0].engine).toMatchObject({ name: 'tensorflow' });
  });

  it('writes the same codes', async () => {
    const options = ['-c', TINY, '-d', at('train'), '--tokenizer', at('tokenizer')];
    await tensorflow('tokenize', [...options, '-o', at('own-tokens.safetensors')]);
    expect(await codes('own-tokens')).toEqual(await codes('tokens'));
  });

  it('trains a generator as wasm does, and resumes it to the same bits', async () => {
    await tensorflow('train-ar', generator('own-generator'));
    expectAgreement(await losses('own-generator'), await losses('generator'));
    await cp(at('own-generator'), at('resumed'), { recursive: true });
    await rm(at('resumed', 'checkpoints', 'step-0000006'), { recursive: true });
    expect(await readdir(at('resumed', 'checkpoints'))).toEqual(['step-0000004']);
    await tensorflow('train-ar', generator('resumed', '--resume'));
    expect((await model('resumed')).equals(await model('own-generator'))).toBe(true);
  });

  it('samples the same images, and measures the same', async () => {
    const pixels: Uint8Array[] = [];
    const results: Record<string, number>[] = [];
    for (const [name, run] of [
      ['tensorflow', tensorflow],
      ['wasm', wasm],
    ] as const) {
      const models = ['-g', at('generator'), '--tokenizer', at('tokenizer')];
      await run('sample', [...models, '--per-class', '1', '-o', at(`samples-${name}`)]);
      const npz = await openNpz(at(`samples-${name}`, 'samples.npz'));
      pixels.push((await npz.read('arr_0')).data as Uint8Array);
      npz.close();
      const measured = ['--tokenizer', at('tokenizer'), '-d', at('train'), '-o', at(`${name}.json`)];
      await run('eval', ['reconstruction', ...measured]);
      results.push(JSON.parse(await readFile(at(`${name}.json`), 'utf8')));
    }
    const [found, expected] = pixels;
    expect(expected.length).toBe(12 * 16 * 16 * 3);
    const apart = found.map((x, i) => Math.abs(x - expected[i]));
    expect(Math.max(...apart)).toBeLessThanOrEqual(1); // a value between two levels may be rounded to either
    for (const name of ['psnr', 'ssim', 'codebook_usage', 'codebook_entropy'])
      expectAgreement([results[0][name]], [results[1][name]], 1e-5);
  });
});
