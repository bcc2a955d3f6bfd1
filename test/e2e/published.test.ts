import { existsSync, statSync } from 'node:fs';
import { readdir, readFile, rm } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import { openTensorFile } from '../../src/checkpoint/open.js';
import { openNpz } from '../../src/formats/npz.js';
import { drawPictures, PICTURE_CLASSES } from '../../src/quickstart/pictures.js';
import { writeInceptionGraph, writeInceptionPytorch } from '../golden/network-files.js';
import { writeTrainingFile } from '../support/training-file.js';
import { alitok, start, succeed, temporaryFolder, useOneThread } from './alitok.js';

const at = await temporaryFolder();
useOneThread();
const golden = (name: string) => fileURLToPath(new URL(`../fixtures/goldens/${name}`, import.meta.url));
const [generator, tokenizer] = [golden('generator.bin'), at('tokenizer.pth')];
const HEADS = ['tokenizer.encoder.heads=3', 'tokenizer.decoder.heads=4'];

beforeAll(async () => {
  await succeed('convert', golden('tokenizer_stage2_legacy.pth'), tokenizer, ...HEADS);
});

async function expectSameTensors(path: string, original: string) {
  const [file, expected] = [await openTensorFile(path), await openTensorFile(original)];
  expect([...file.tensors.keys()].sort()).toEqual([...expected.tensors.keys()].sort());
  for (const name of expected.tensors.keys())
    expect(await file.read(name)).toEqual(await expected.read(name));
  await file.close();
  await expected.close();
}

describe('checkpoints of PyTorch', () => {
  it('convert to safetensors and back without a change', async () => {
    const [there, back] = [at('generator.safetensors'), at('back.bin')];
    await succeed('convert', generator, there);
    await succeed('convert', there, back);
    for (const path of [there, back]) await expectSameTensors(path, generator);
    await expectSameTensors(tokenizer, golden('tokenizer_stage2.pth'));
  });

  it('a training file gives its model, for stage 2 to start from', async () => {
    const stage1 = at('stage1.safetensors');
    await succeed('convert', golden('tokenizer_stage1_last.pth'), stage1, ...HEADS);
    const { stdout } = await succeed('inspect', stage1);
    expect(stdout).toMatch(/tokenizer, stage 1/);
    expect(stdout).toMatch(/width 48, 2 layers, 3 heads/);
  });

  it('with several sets of weights, the model is used, with a message, or the set that is named', async () => {
    const file = await openTensorFile(generator);
    const read = async (change: number) =>
      Object.fromEntries(
        await Promise.all(
          [...file.tensors].map(async ([name, { shape }]) => {
            const data = (await file.readFloat32(name)).map((value) => value + change);
            return [name, { shape, data }] as const;
          }),
        ),
      );
    const training = at('training.pt');
    await writeTrainingFile(training, { ema: await read(1), model: await read(0) });
    await file.close();
    const said =
      /training\.pt has weights under model, ema; those under model are taken, \S+training\.pt#ema takes others/;

    const { stdout } = await succeed('inspect', training);
    expect(stdout).toMatch(/^weights +under model; others: \S+training\.pt#ema$/m);
    expect((await succeed('inspect', `${training}#ema`)).stdout).not.toMatch(/^weights/m);
    expect((await succeed('convert', training, at('model.safetensors'))).stderr).toMatch(said);
    await expectSameTensors(at('model.safetensors'), generator);
    expect((await succeed('convert', `${training}#ema`, at('ema.safetensors'))).stderr).toBe('');
    await expectSameTensors(at('ema.safetensors'), `${training}#ema`);

    const sample = async (out: string, path: string) => {
      const models = ['-g', path, '--tokenizer', tokenizer];
      const { stderr } = await succeed('sample', ...models, '-o', at(out), '--npz-only', '--count', '2');
      const { generator: named } = JSON.parse(await readFile(at(out, 'samples.json'), 'utf8'));
      return { said: said.test(stderr), named, images: await readFile(at(out, 'samples.npz')) };
    };
    const [model, ema, plain] = [
      await sample('of-model', training),
      await sample('of-ema', `${training}#ema`),
      await sample('of-plain', generator),
    ];
    expect([model.said, ema.said]).toEqual([true, false]);
    expect(ema.named).toMatch(/training\.pt#ema, \d+ bytes/);
    expect(model.images).toEqual(plain.images);
    expect(ema.images).not.toEqual(plain.images);
    const { code, stderr } = await alitok('inspect', `${training}#emma`);
    expect([code, stderr]).toEqual([
      4,
      expect.stringMatching(/no weights under emma; it has them under ema, model/),
    ]);
  });

  it('inspect shows their type, their sizes and their config', async () => {
    const { stdout } = await succeed('inspect', generator);
    expect(stdout).toMatch(/^kind +generator$/m);
    expect(stdout).toMatch(/width 64, 3 layers, 4 heads/);
    expect(stdout).toMatch(/202,816/);
    expect(stdout).toMatch(/configs\/alitok_b\.yaml with generator\.width=64 .*generator\.classes=10/);
    expect(stdout).toMatch(/all names and shapes match/);
    const bare = await succeed('inspect', golden('tokenizer_stage2.pth'));
    expect(bare.stdout).toMatch(/tokenizer, stage 2/);
    expect(bare.stdout).toMatch(/32 × 32 px, patches of 8/);
    expect(bare.stdout).toMatch(/heads not in the file/);
  });

  it('a mismatch lists names, and nothing is written', async () => {
    const { code, stderr } = await alitok(
      ...['convert', generator, at('no.safetensors'), 'generator.layers=2', 'generator.classes=11'],
    );
    expect(code).toBe(4);
    expect(stderr).toMatch(
      /misshapen: embeddings\.weight is \[44,64\], expected \[45,64\]; unexpected: blocks\.2\.\S+, blocks\.2\.\S+, blocks\.2\.\S+, … \(11 in all\)/,
    );
    expect(existsSync(at('no.safetensors'))).toBe(false);
    const heads = await alitok('convert', golden('tokenizer_stage2.pth'), at('no.safetensors'));
    expect(heads.code).toBe(4);
    expect(heads.stderr).toMatch(/does not show tokenizer\.encoder\.heads and tokenizer\.decoder\.heads/);
  });
});

describe('sampling from them', () => {
  const sample = (out: string, ...more: string[]) =>
    ['sample', '-g', generator, '--tokenizer', tokenizer, '-o', at(out), '--npz-only', ...more] as const;
  const samples = (out: string) => readFile(at(out, 'samples.npz'));

  it('needs no config, and prints the guidance and the seed', async () => {
    const { stderr } = await succeed(...sample('few', '--count', '5', '--seed', '7'));
    expect(stderr).toMatch(/guidance scale 16, power 1\.8, seed 7/);
    expect((await readdir(at('few'))).sort()).toEqual(['samples.json', 'samples.npz']);
    const npz = await openNpz(at('few', 'samples.npz'));
    expect((await npz.header('arr_0')).shape).toEqual([5, 32, 32, 3]);
    npz.close();
  });

  it('a killed run continues where it stopped, with the same images', async () => {
    const options = ['--count', '120', '--batch-size', '4'];
    await succeed(...sample('whole', ...options));
    const { child, outcome } = start(...sample('killed', ...options));
    const pixels = at('killed', 'partial', 'pixels');
    const began = Date.now();
    while (!existsSync(pixels) || statSync(pixels).size < 8 * 32 * 32 * 3) {
      if (Date.now() - began > 60_000) throw new Error('the run does not begin');
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    child.kill('SIGKILL');
    await outcome;
    expect(existsSync(at('killed', 'samples.npz'))).toBe(false);
    const done = statSync(pixels).size / (32 * 32 * 3);
    expect(done).toBeLessThan(120);

    const other = await alitok(...sample('killed', ...options, '--seed', '5'));
    expect(other.code).toBe(6);
    expect(other.stderr).toMatch(
      /killed\/partial contains images of an interrupted run with another settings/,
    );

    const { stderr } = await succeed(...sample('killed', ...options));
    expect(Number(/resuming after (\d+) images/.exec(stderr)?.[1])).toBe(done - (done % 4));
    expect((await samples('killed')).equals(await samples('whole'))).toBe(true);
    expect((await readdir(at('killed'))).sort()).toEqual(['samples.json', 'samples.npz']);
  });

  it('refuses a generator of images whose tokens lie differently', async () => {
    const converted = at('converted.safetensors');
    const options = ['--tokenizer', tokenizer, '-o', at('no'), '--count', '1'];
    for (const [sizes, tokens] of [
      [[], '17 \\+ 16²'],
      [['tokenizer.image_size=32', 'tokenizer.patch_size=8', 'tokenizer.prefix_tokens=4'], '4 \\+ 4²'],
    ] as const) {
      await succeed('convert', generator, converted, ...sizes);
      const { code, stderr } = await alitok('sample', '-g', converted, ...options);
      expect(code).toBe(4);
      expect(stderr).toMatch(new RegExp(`models ${tokens} tokens an image, but \\S+ has 5 \\+ 4²; name the`));
      await rm(converted);
    }
    expect(existsSync(at('no'))).toBe(false);
    await succeed('convert', generator, converted, 'tokenizer.image_size=32', 'tokenizer.patch_size=8');
    await succeed('sample', '-g', converted, '--tokenizer', tokenizer, '-o', at('fits'), '--count', '1');
  });

  it('refuses a file that is not a tokenizer', async () => {
    const { code, stderr } = await alitok(
      ...['sample', '-g', generator, '--tokenizer', generator, '-o', at('no'), '--count', '1'],
    );
    expect(code).toBe(4);
    expect(stderr).toMatch(/generator\.bin holds a generator; a tokenizer is needed here/);
    expect(existsSync(at('no'))).toBe(false);
  });
});

describe('evaluation with Inception', () => {
  it('gives the same network for both of its weight files', async () => {
    const [graph, pytorch] = [at('classify_image_graph_def.pb'), at('inception.pth')];
    await writeInceptionGraph(graph);
    await writeInceptionPytorch(pytorch);
    await drawPictures({ folder: at(), size: 16, perClass: 1, seed: 3, split: 'train' });
    const [few, rest] = [PICTURE_CLASSES.slice(0, 4), PICTURE_CLASSES.slice(4)]; // few images, since the network is large
    for (const name of rest) await rm(at('train', name), { recursive: true });
    const reference = at('reference.npz');
    const stats = await succeed(
      ...['stats', '-d', at('train'), '--size', '16', '--features', graph, '--keep', '50', '-o', reference],
    );
    expect(stats.stdout).toMatch(/^images +4$/m);
    expect(stats.stderr).toMatch(/4 images are too few for 2048 features/);
    const npz = await openNpz(reference);
    expect((await npz.header('sigma')).shape).toEqual([2048, 2048]);
    expect((await npz.header('sigma_s')).shape).toEqual([2023, 2023]);
    npz.close();
    const json = at('inception.json');
    await succeed(
      ...['eval', 'generation', '--samples', at('train'), '--size', '16', '--features', pytorch],
      ...['--reference', reference, '-o', json],
    );
    const result = JSON.parse(await readFile(json, 'utf8'));
    expect(result).toMatchObject({ samples: few.length, references: few.length, precision: 1, recall: 1 });
    expect(Math.abs(result.fid)).toBeLessThan(1e-3);
    expect(Math.abs(result.sfid)).toBeLessThan(1e-3);
    expect(result.preprocessing).toMatch(/bilinear to 299 × 299 as TensorFlow 1/);
  });
});
