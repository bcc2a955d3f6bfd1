import { readFile } from 'node:fs/promises';
import { beforeAll, describe, expect, it } from 'vitest';
import { openNpz } from '../../src/formats/npz.js';
import { drawPictures } from '../../src/quickstart/pictures.js';
import { resolveModel } from '../../src/run/layout.js';
import { copyTensors } from '../support/copy-tensors.js';
import { alitok, succeed, TINY, temporaryFolder, useOneThread } from './alitok.js';

useOneThread();
const at = await temporaryFolder();

beforeAll(() => drawPictures({ folder: at(), size: 16, perClass: 1, seed: 1, split: 'train' }));

describe.each([
  ['2 × 2', 8, 2],
  ['4 × 4', 4, 4],
])('a prefix without the extra token on a grid of %s', (_, patch, prefix) => {
  const [tokenizer, tokens, generator] = ['tokenizer', 'tokens.safetensors', 'generator'].map((part) =>
    at(`${prefix}-${part}`),
  );
  const config = ['-c', TINY, `tokenizer.patch_size=${patch}`, `tokenizer.prefix_tokens=${prefix}`];
  const images = ['-d', at('train')];
  const count = prefix + prefix ** 2;

  it('trains, tokenizes, reconstructs and samples', async () => {
    await succeed('train-tokenizer', ...config, ...images, '-r', tokenizer);
    await succeed('tokenize', ...config, '--tokenizer', tokenizer, ...images, '-o', tokens);
    expect((await succeed('inspect', tokens)).stdout).toMatch(
      new RegExp(`2 crops × ${count} tokens an image`),
    );
    await succeed('train-ar', ...config, '--tokens', tokens, '--tokenizer', tokenizer, '-r', generator);
    const reconstructions = at(`${prefix}-reconstructions`);
    await succeed('reconstruct', '--tokenizer', tokenizer, ...images, '-o', reconstructions);
    const samples = at(`${prefix}-samples`);
    await succeed('sample', '-g', generator, '--tokenizer', tokenizer, '--count', '3', '-o', samples);
    const npz = await openNpz(`${samples}/samples.npz`);
    expect((await npz.header('arr_0')).shape).toEqual([3, 16, 16, 3]);
    npz.close();
  });

  it('is shown by inspect, for the config, the run, and a file without a description', async () => {
    const bare = at(`${prefix}-bare.pth`);
    await copyTensors(await resolveModel(tokenizer), bare);
    const words = `${count} an image: ${prefix} prefix + ${prefix}²`;
    for (const shown of [config.slice(1), [generator]])
      expect((await succeed('inspect', ...shown)).stdout).toContain(words);
    for (const path of [`${tokenizer}/stage1`, tokenizer, bare]) {
      const { stdout } = await succeed('inspect', path);
      expect(stdout).toContain(words);
      expect(stdout).toContain('all names and shapes match');
      // The config that it names can be used unchanged, if the file tells its heads.
      const [, config, fitting] = /^config +(\S+) with (.*)$/m.exec(stdout)!;
      expect(fitting.split(' ')).toContain(`tokenizer.prefix_tokens=${prefix}`);
      const heads = path === bare ? ['tokenizer.encoder.heads=2', 'tokenizer.decoder.heads=2'] : [];
      expect((await succeed('inspect', config, ...fitting.split(' '), ...heads)).stdout).toContain(words);
    }
  });

  it('of another length is refused, for its codes and for stage 2', async () => {
    const published = ['-c', TINY, `tokenizer.patch_size=${patch}`];
    const ar = await alitok('train-ar', ...published, '--tokens', tokens, '-r', at(`${prefix}-no`));
    expect(ar.code).toBe(3);
    expect(ar.stderr).toMatch(new RegExp(`has ${count} codes an image`));
    const stage2 = ['--stage', '2', '--from', tokenizer, ...images, '-r', at(`${prefix}-no`)];
    const other = await alitok('train-tokenizer', ...published, ...stage2);
    expect(other.code).toBe(4);
    expect(other.stderr).toMatch(/was trained with another tokenizer\.prefix_tokens/);
  });

  it('stays in the config of a run, where the published length is none', async () => {
    expect(await readFile(`${tokenizer}/stage1/config.yaml`, 'utf8')).toContain(`prefix_tokens: ${prefix}\n`);
    const written = (await succeed('inspect', '--resolved', TINY, 'tokenizer.prefix_tokens=3')).stdout;
    expect(written).toMatch(/^ +prefix_tokens: null/m);
  });
});
