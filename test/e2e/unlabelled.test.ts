import { cp, mkdir, readdir, readFile } from 'node:fs/promises';
import sharp from 'sharp';
import { beforeAll, describe, expect, it } from 'vitest';
import { openEngine, openGenerator, openTokenizer } from '../../src/index.js';
import { drawPictures } from '../../src/quickstart/pictures.js';
import { openTokenCache } from '../../src/tokens/cache.js';
import { alitok, succeed, TINY, temporaryFolder, useOneThread } from './alitok.js';

// Images in one folder, without class folders, from the tokenizer to the evaluation.

useOneThread();
const at = await temporaryFolder();
const [images, tokenizer, tokens, generator] = ['images', 'tokenizer', 'tokens.safetensors', 'generator'].map(
  (name) => at(name),
);
const data = ['-c', TINY, '-d', images];
const sample = (out: string, ...more: string[]) =>
  succeed('sample', '-g', generator, '--tokenizer', tokenizer, '-o', at(out), ...more);
const pixels = (...names: string[]) =>
  sharp(at(...names))
    .raw()
    .toBuffer();
const made = async (folder: string) => JSON.parse(await readFile(at(folder, 'samples.json'), 'utf8'));
const height = async (folder: string) => (await sharp(at(folder, 'grid.png')).metadata()).height;

beforeAll(async () => {
  await drawPictures({ folder: at('drawn'), size: 16, perClass: 2, seed: 1, split: 'train' });
  await mkdir(images);
  for (const [i, name] of (await readdir(at('drawn/train'))).entries())
    for (const file of await readdir(at('drawn/train', name)))
      await cp(at('drawn/train', name, file), `${images}/${i}-${file}`);
});

describe('images without class folders', () => {
  it('train a tokenizer, and become codes of one nameless class', async () => {
    const { stderr } = await succeed('train-tokenizer', ...data, '--validation', images, '-r', tokenizer);
    expect(stderr).toMatch(/INFO: .*images: 24 images$/m);
    await succeed('tokenize', ...data, '--tokenizer', tokenizer, '-o', tokens);
    expect((await succeed('inspect', tokens)).stdout).toMatch(/^images +24 of 1 class$/m);
    const cache = await openTokenCache(tokens);
    expect([cache.classNames, new Set(cache.classes)]).toEqual([[''], new Set([0])]);
    await cache.close();
    const { stdout } = await succeed('eval', 'reconstruction', '--tokenizer', tokenizer, '-d', images);
    expect(stdout).toMatch(/^images +24$/m);
  });

  it('train a generator of one class, and other settings are pointed out', async () => {
    const train = ['train-ar', '-c', TINY, '--tokens', tokens, '--tokenizer', tokenizer, '-r', generator];
    const { stderr } = await succeed(...train, '--dry-run');
    expect(stderr).toMatch(/INFO: .*tokens\.safetensors: 24 images, each in 2 crops \(flip\) of 7 codes$/m);
    expect(stderr).toMatch(
      /WARN: generator\.classes is 12, but .*tokens\.safetensors has 1 class: .*; set generator\.classes=1$/m,
    );
    const one = await succeed(...train, '--dry-run', 'generator.classes=1');
    expect(one.stderr).toMatch(
      /WARN: generator\.classes is 1, so guidance .* set sample\.guidance_scale=0$/m,
    );
    const silent = await succeed(...train, 'generator.classes=1', 'sample.guidance_scale=0');
    expect(silent.stderr).not.toMatch(/WARN/);
    expect(await readdir(`${generator}/images`)).not.toEqual([]);
    expect((await succeed('inspect', generator)).stdout).toMatch(/^vocabulary +16 codes, 1 class$/m);
  });

  it('are sampled as the one class, whose pictures need no labels', async () => {
    const { stderr } = await sample('one', '-n', '4');
    expect(stderr).toMatch(/INFO: guidance scale 0,/);
    expect(stderr).not.toMatch(/WARN/);
    expect((await made('one')).classes).toEqual([0]);
    expect(await readdir(at('one/images'))).toEqual([0, 1, 2, 3].map((i) => `00000${i}-class-0.png`));
    const guided = await sample('guided', '-n', '1', '--guidance-scale', '2');
    expect(guided.stderr).toMatch(/WARN: the generator has one class, .* use --guidance-scale 0$/m);
    const { code, stderr: wrong } = await alitok(
      ...['sample', '-g', generator, '--tokenizer', tokenizer, '-o', at('no'), '--classes', '1'],
    );
    expect([code, wrong]).toEqual([
      2,
      expect.stringMatching(/--classes: there is no class 1; the only class is 0;/),
    ]);
  });

  it('are evaluated', async () => {
    const features = at('features');
    await succeed('train-features', '-c', TINY, '-d', at('drawn/train'), '-r', features);
    const { stdout } = await succeed(
      ...['eval', 'generation', '--samples', at('one/samples.npz')],
      ...['--reference', images, '--features', features],
    );
    expect(stdout).toMatch(/^references +24$/m);
  });
});

describe('sample --classes none', () => {
  it('samples without a class, and says that guidance is not used', async () => {
    const { stderr } = await sample('none', '--classes', 'none', '--per-class', '3', '--guidance-scale', '9');
    expect(stderr).toMatch(/INFO: images without a class, so guidance is not used; seed 42$/m);
    expect(stderr).not.toMatch(/guidance scale|WARN/);
    expect((await made('none')).classes).toEqual(['none']);
    expect(await readdir(at('none/images'))).toEqual([0, 1, 2].map((i) => `00000${i}-none.png`));
    expect(await height('none')).toBeGreaterThan(await height('one')); // it has labels
  });

  it('is one entry of a list as well', async () => {
    const { stderr } = await sample('both', '--classes', '#none,0', '-n', '4', '--guidance-scale', '9');
    expect(stderr).toMatch(/INFO: guidance scale 9,/);
    expect((await made('both')).classes).toEqual(['none', 0]);
    expect(await readdir(at('both/images'))).toEqual(
      ['none', 'class-0', 'none', 'class-0'].map((name, i) => `00000${i}-${name}.png`),
    );
    const name = 'images/000002-none.png';
    expect((await pixels('both', name)).equals(await pixels('none', name))).toBe(true);
  });

  it('is the same in the library', async () => {
    await openEngine('wasm', { threads: 1 });
    const loaded = await openTokenizer(tokenizer);
    const library = await openGenerator(generator, loaded);
    const drawn = await library.sample(['none', 0, 'none'], { guidance_scale: 9 });
    for (const [i, name] of ['none', 'class-0', 'none'].entries()) {
      const file = await pixels('both/images', `00000${i}-${name}.png`);
      expect(Buffer.from(drawn[i].data).equals(file), name).toBe(true);
    }
    await expect(library.sample([1])).rejects.toThrow(/there is no class 1; the only class is 0$/);
    library.dispose();
    loaded.dispose();
  });
});
