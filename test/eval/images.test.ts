import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import * as tf from '@tensorflow/tfjs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ZipFile } from 'yazl';
import { evaluateGeneration, evaluateReconstruction } from '../../src/api/evaluate.js';
import { saveFeatureNetwork } from '../../src/checkpoint/feature-network.js';
import { saveTokenizer } from '../../src/checkpoint/tokenizer.js';
import { encodePng } from '../../src/data/images/png.js';
import { splitImages } from '../../src/data/images/split.js';
import type { Share } from '../../src/data/loader.js';
import { openEngine } from '../../src/engine/index.js';
import { CheckpointError, DataError } from '../../src/errors.js';
import { openFeatureExtractor } from '../../src/eval/feature-extractor.js';
import { type ImageSource, openImages } from '../../src/eval/image-batches.js';
import { psnr } from '../../src/eval/metrics/psnr.js';
import { FeatureStatistics } from '../../src/eval/metrics/statistics.js';
import { encodeNpyHeader } from '../../src/formats/npy.js';
import { type NpzArray, writeNpz } from '../../src/formats/npz.js';
import { FeatureNetwork } from '../../src/models/judges/feature-network.js';
import { toPixels, toTensor } from '../../src/models/pixels.js';
import { Tokenizer } from '../../src/models/tokenizer/tokenizer.js';
import { Random } from '../../src/random.js';

const SIZE = 16;
const BYTES = SIZE * SIZE * 3;

let folder: string;
const warnings: string[] = [];
const reporter = {
  progress: () => ({ update() {}, stop() {} }),
  info() {},
  warn: (message: string) => warnings.push(message),
};
const at = (name: string) => join(folder, name);

/** Blocks of random colours; the contrast distinguishes one set from another. */
function pictures(count: number, seed: number, contrast: number): Uint8Array {
  const random = Random.of(seed, 'pictures');
  const pixels = new Uint8Array(count * BYTES);
  for (let image = 0; image < count; image++) {
    const colours = Array.from({ length: 4 * 3 }, () => 128 + contrast * (random.uniform() - 0.5));
    for (let y = 0; y < SIZE; y++)
      for (let x = 0; x < SIZE; x++)
        for (let c = 0; c < 3; c++)
          pixels[image * BYTES + (y * SIZE + x) * 3 + c] =
            colours[((y >> 3) * 2 + (x >> 3)) * 3 + c] + ((x * y) % 3);
  }
  return pixels;
}

async function writeFolder(name: string, pixels: Uint8Array): Promise<string> {
  await mkdir(at(name));
  for (const [i, data] of splitImages(pixels, SIZE).entries()) {
    await writeFile(
      join(at(name), `${String(i).padStart(4, '0')}.png`),
      await encodePng({ width: SIZE, height: SIZE, data }),
    );
  }
  return at(name);
}

async function writeArrays(name: string, ...arrays: NpzArray[]): Promise<string> {
  await writeNpz(at(name), arrays);
  return at(name);
}

const images = (data: Uint8Array, shape = [data.length / BYTES, SIZE, SIZE, 3]): NpzArray => ({
  name: 'arr_0',
  dtype: 'u1',
  shape,
  data,
});

async function collect(source: ImageSource, share?: Share): Promise<Uint8Array[]> {
  const batches: Uint8Array[] = [];
  for await (const batch of source.batches(share)) batches.push(batch);
  return batches;
}

let network: string;
const [ALL, OTHER] = [pictures(70, 1, 200), pictures(40, 2, 60)];
let allFolder: string;
let allFile: string;
let otherFile: string;

beforeAll(async () => {
  await openEngine('cpu');
  folder = await mkdtemp(join(tmpdir(), 'eval-'));
  network = at('features.safetensors');
  const model = new FeatureNetwork({ image_size: SIZE, classes: 3, channels: [8, 16] });
  model.parameters.initialize(Random.of(5));
  await saveFeatureNetwork(network, model, ['a', 'b', 'c']);
  model.parameters.dispose();
  allFolder = await writeFolder('all', ALL);
  allFile = await writeArrays('all.npz', images(ALL));
  otherFile = await writeArrays('other.npz', images(OTHER));
});
afterAll(() => rm(folder, { recursive: true }));

describe('openImages', () => {
  it('reads an .npz and a folder alike, a batch at a time, any number of times', async () => {
    for (const source of [await openImages(allFile), await openImages(allFolder, { size: SIZE })]) {
      expect([source.size, source.count]).toEqual([SIZE, 70]);
      for (let time = 0; time < 2; time++) {
        const batches = await collect(source);
        expect(batches.map((batch) => batch.length / BYTES)).toEqual([64, 6]);
        expect(Buffer.concat(batches).equals(ALL)).toBe(true);
      }
    }
  });

  it('divides an .npz, deflated or not, and a folder alike among processes, which take turns', async () => {
    const zip = new ZipFile();
    const header = encodeNpyHeader('u1', [70, SIZE, SIZE, 3]);
    zip.addBuffer(Buffer.concat([header, ALL]), 'arr_0.npy', { compress: true });
    zip.end();
    await writeFile(at('deflated.npz'), await buffer(zip.outputStream));
    for (const [path, size] of [[allFile], [at('deflated.npz')], [allFolder, SIZE]] as [string, number?][]) {
      const source = await openImages(path, { size, batch: 16 });
      const shares = await Promise.all([0, 1, 2].map((rank) => collect(source, { rank, size: 3 })));
      const counts = shares.map((batches) => batches.map((batch) => batch.length / BYTES));
      expect(counts).toEqual([
        [16, 16],
        [16, 6],
        [16, 0],
      ]);
      const inTurn = [0, 1].flatMap((round) => shares.map((batches) => batches[round]));
      expect(Buffer.concat(inTurn).equals(ALL)).toBe(true);
    }
  });

  it('names what is missing', async () => {
    await expect(openImages(at('absent'))).rejects.toThrow(DataError);
    await expect(openImages(at('absent'))).rejects.toThrow(/absent does not exist/);
    await expect(openImages(allFolder)).rejects.toThrow(/give size/);
    await mkdir(at('empty'));
    await expect(openImages(at('empty'), { size: SIZE })).rejects.toThrow(/empty holds no images/);
  });

  it('refuses arrays that are not square colour images', async () => {
    const refused = async (name: string, array: NpzArray, message: RegExp) => {
      const path = await writeArrays(name, array);
      await expect(openImages(path)).rejects.toThrow(DataError);
      await expect(openImages(path)).rejects.toThrow(message);
    };
    await refused(
      'wide.npz',
      images(new Uint8Array(2 * 4 * 5 * 3), [2, 4, 5, 3]),
      /\[2,4,5,3\].*\(N, S, S, 3\)/,
    );
    await refused('grey.npz', images(new Uint8Array(32), [2, 4, 4, 1]), /\(N, S, S, 3\)/);
    await refused('flat.npz', images(new Uint8Array(48), [1, 48]), /\(N, S, S, 3\)/);
    await refused('none.npz', images(new Uint8Array(0), [0, 4, 4, 3]), /\(N, S, S, 3\)/);
    const float: NpzArray = { name: 'arr_0', dtype: 'f4', shape: [1, 4, 4, 3], data: new Float32Array(48) };
    await refused('float.npz', float, /f4/);
    await refused('named.npz', { ...float, name: 'images' }, /no array arr_0; it has images/);
    await writeFile(at('text.npz'), 'text');
    await expect(openImages(at('text.npz'))).rejects.toThrow(DataError);
  });
});

describe('openFeatureExtractor', () => {
  it('returns rows of the features, the same alone and in a batch, and keeps no tensors', async () => {
    const before = tf.memory().numTensors;
    const extractor = await openFeatureExtractor(network);
    expect(extractor.dimensions).toEqual({ pool: 16, spatial: 8 * 8 * 7, logits: 3 });
    expect(extractor.checksum).toBe(
      createHash('sha256')
        .update(await readFile(network))
        .digest('hex'),
    );
    const batch = extractor.extract(ALL.subarray(0, 3 * BYTES), SIZE);
    expect(batch.pool).toBeInstanceOf(Float32Array);
    const alone = extractor.extract(ALL.subarray(2 * BYTES, 3 * BYTES), SIZE);
    for (const key of ['pool', 'spatial', 'logits'] as const) {
      const d = extractor.dimensions[key];
      expect(batch[key].length).toBe(3 * d);
      expect(alone[key].length).toBe(d);
      alone[key].forEach((value, i) => {
        expect(batch[key][2 * d + i]).toBeCloseTo(value, 5);
      });
    }
    expect(() => extractor.extract(new Uint8Array(8 * 8 * 3), 8)).toThrow(/images of 16 px, these have 8/);
    extractor.dispose();
    expect(tf.memory().numTensors).toBe(before);
  });

  it('names a file that is missing', async () => {
    await expect(openFeatureExtractor(at('absent'))).rejects.toThrow(CheckpointError);
  });
});

describe('evaluateSamples', () => {
  const evaluate = (samples: string, reference: string, size?: number) =>
    evaluateGeneration({ samples, reference, features: network, size }, reporter);

  it('compares images with themselves', async () => {
    const result = await evaluate(allFolder, allFile, SIZE);
    expect(Math.abs(result.fid)).toBeLessThan(1e-6);
    expect(Math.abs(result.sfid!)).toBeLessThan(1e-4);
    expect([result.precision, result.recall]).toEqual([1, 1]);
    expect([result.samples, result.references]).toEqual([70, 70]);
    expect(result.features).toContain('features.safetensors');
    expect([result.kid! < 1e-6, result.kid_std! < 1e-9, result.kid_subset]).toEqual([true, true, 70]);
    expect(Object.keys(result)).toEqual([
      'fid',
      'sfid',
      'inception_score',
      'precision',
      'recall',
      'kid',
      'kid_std',
      'kid_subset',
      'samples',
      'references',
      'image_size',
      'reference_statistics',
      'reference',
      'reference_sha256',
      'features',
      'features_sha256',
      'preprocessing',
      'inception_split',
      'neighbour',
    ]);
  });

  it('gives the same result with stored statistics', async () => {
    const images_ = await evaluate(otherFile, allFile);
    expect(images_.fid).toBeGreaterThan(1e-3);
    expect(images_.recall).toBeLessThan(1);
    const extractor = await openFeatureExtractor(network);
    const { pool, spatial } = extractor.extract(ALL, SIZE);
    const statistics = (suffix: string, rows: Float32Array, d: number): NpzArray[] => {
      const all = new FeatureStatistics(d);
      all.add(rows);
      const { mean, covariance } = all.gaussian;
      return [
        { name: `mu${suffix}`, dtype: 'f8', shape: [d], data: mean },
        { name: `sigma${suffix}`, dtype: 'f8', shape: [d, d], data: covariance },
      ];
    };
    const arrays = [
      ...statistics('', pool, extractor.dimensions.pool),
      ...statistics('_s', spatial, extractor.dimensions.spatial),
    ];
    extractor.dispose();
    const alone = await evaluate(otherFile, await writeArrays('statistics.npz', ...arrays));
    expect(alone.fid / images_.fid).toBeCloseTo(1, 4);
    expect(alone.sfid! / images_.sfid!).toBeCloseTo(1, 4);
    for (const key of ['precision', 'recall', 'kid', 'kid_std', 'kid_subset'])
      expect(alone).not.toHaveProperty(key);
    expect(alone.references).toBeUndefined();
    // If a file has statistics and images, the stored statistics are used; precision, recall and KID need the images.
    const both = await evaluate(otherFile, await writeArrays('both.npz', ...arrays, images(OTHER)));
    expect(both.fid).toBeCloseTo(alone.fid, 9);
    expect([both.precision, both.recall, both.references, both.kid_subset]).toEqual([1, 1, 40, 40]);
    const { sfid: _, ...pooled } = both;
    const withoutSpatial = await evaluate(
      otherFile,
      await writeArrays('pooled.npz', ...arrays.slice(0, 2), images(OTHER)),
    );
    expect(withoutSpatial).toEqual({
      ...pooled,
      reference: 'pooled.npz',
      reference_sha256: expect.any(String),
    });
  });

  it('refuses statistics of another network, or without a covariance', async () => {
    const mu = (suffix: string): NpzArray => ({
      name: `mu${suffix}`,
      dtype: 'f8',
      shape: [2],
      data: new Float64Array(2),
    });
    const lone = await writeArrays('lone.npz', mu(''), mu('_s'));
    await expect(evaluate(otherFile, lone)).rejects.toThrow(/no array sigma/);
    const sigma: NpzArray = { name: 'sigma', dtype: 'f8', shape: [2, 2], data: new Float64Array(4) };
    const foreign = await writeArrays('foreign.npz', mu(''), mu('_s'), sigma);
    await expect(evaluate(otherFile, foreign)).rejects.toThrow(DataError);
    await expect(evaluate(otherFile, foreign)).rejects.toThrow(
      /mu \[2\] and sigma \[2,2\] do not fit the feature network, which has 16 features/,
    );
  });

  it('refuses too few images and images of another size, on either side', async () => {
    const few = await writeArrays('few.npz', images(ALL.slice(0, 3 * BYTES)));
    await expect(evaluate(few, allFile)).rejects.toThrow(/few\.npz has 3 images; at least 4/);
    await expect(evaluate(allFile, few)).rejects.toThrow(/few\.npz has 3 images; at least 4/);
    const small = await writeArrays('small.npz', images(new Uint8Array(5 * 8 * 8 * 3), [5, 8, 8, 3]));
    await expect(evaluate(small, allFile)).rejects.toThrow(/16 px, these have 8/);
    await expect(evaluate(allFile, small)).rejects.toThrow(/16 px, these have 8/);
    await expect(evaluate(allFile, at('absent.npz'))).rejects.toThrow(/absent\.npz.*no such file/);
  });

  it('skips a damaged file and reports it', async () => {
    const damaged = await writeFolder('damaged', pictures(100, 3, 150));
    await writeFile(join(damaged, '0042.png'), 'no image');
    warnings.length = 0;
    const result = await evaluate(damaged, allFile, SIZE);
    expect(result.samples).toBe(99);
    expect(warnings).toEqual([expect.stringContaining('0042.png')]);
    expect(Number.isFinite(result.fid)).toBe(true);
  });
});

describe('evaluateTokenizer', () => {
  const file = () => at('tokenizer.safetensors');
  const geometry = { image_size: SIZE, patch_size: 8, codebook_size: 16, token_size: 4 };
  const part = { width: 16, layers: 1, heads: 2 };
  const expected = { psnr: 0, codes: [] as number[] };

  beforeAll(async () => {
    const tokenizer = new Tokenizer(
      { ...geometry, encoder: part, decoder: { ...part, class_tokens: 2 }, l2_normalize: false },
      1,
    );
    tokenizer.parameters.initialize(Random.of(6));
    await saveTokenizer(file(), tokenizer);
    tf.tidy(() => {
      const codes = tokenizer.tokenize(toTensor(ALL, SIZE));
      expected.codes = [...codes.dataSync()];
      const rows = codes.reshape([70, -1]) as tf.Tensor2D;
      const out = toPixels(tokenizer.detokenize(rows));
      for (let i = 0; i < ALL.length; i += BYTES)
        expected.psnr += psnr(ALL.subarray(i, i + BYTES), out.subarray(i, i + BYTES), 255) / 70;
    });
    tokenizer.parameters.dispose();
  });

  it('measures reconstructions and codes; rFID only with a feature network', async () => {
    const before = tf.memory().numTensors;
    const result = await evaluateReconstruction({ tokenizer: file(), folder: allFolder }, reporter);
    expect(tf.memory().numTensors).toBe(before);
    expect(result.images).toBe(70);
    expect(result.psnr).toBeCloseTo(expected.psnr, 3);
    expect(result.ssim).toBeGreaterThan(-1);
    expect(result.ssim).toBeLessThan(1);
    const used = new Set(expected.codes);
    expect(result.codebook_usage).toBe(used.size / 16);
    const shares = [...used].map(
      (code) => expected.codes.filter((other) => other === code).length / expected.codes.length,
    );
    expect(result.codebook_entropy).toBeCloseTo(
      shares.reduce((sum, p) => sum - p * Math.log2(p), 0),
      9,
    );
    expect(result).not.toHaveProperty('rfid');
    const full = await evaluateReconstruction(
      { tokenizer: file(), folder: allFolder, features: network },
      reporter,
    );
    expect(full).toMatchObject(result);
    expect(full.rfid).toBeGreaterThan(0);
    expect(full.features_sha256).toMatch(/^[0-9a-f]{64}$/);
    expect(Object.keys(full)).toEqual([
      'psnr',
      'ssim',
      'codebook_usage',
      'codebook_entropy',
      'rfid',
      'features',
      'features_sha256',
      'preprocessing',
      'images',
      'image_size',
      'tokenizer',
      'tokenizer_sha256',
    ]);
  });

  it('refuses one image for rFID, and a feature network as a tokenizer', async () => {
    const one = await writeFolder('one', ALL.subarray(0, BYTES));
    const options = { tokenizer: file(), folder: one };
    await expect(evaluateReconstruction({ ...options, features: network }, reporter)).rejects.toThrow(
      DataError,
    );
    expect((await evaluateReconstruction(options, reporter)).images).toBe(1);
    await expect(evaluateReconstruction({ ...options, tokenizer: network }, reporter)).rejects.toThrow(
      /holds a feature-network; a tokenizer is needed/,
    );
  });
});
