import * as tf from '@tensorflow/tfjs';
import { expect, it } from 'vitest';
import { loadConfig } from '../../../../src/config/load.js';
import { Random } from '../../../../src/random.js';
import { describeEngines } from '../../../support/engines.js';
import { openQuantizer } from './quantizer.js';

const [ENTRIES, WIDTH, ROWS] = [40, 3, 24];

const latents = () => {
  const random = Random.of(7, 'latents');
  return tf.tensor3d(
    Array.from({ length: ROWS * WIDTH }, () => random.normal()),
    [2, ROWS / 2, WIDTH],
  );
};

/** The quantizer with its tensors as numbers, and its codebook C·Wᵀ + b by hand. */
function open() {
  const { quantizer, parameters } = openQuantizer('simvq', { codebook_size: ENTRIES, token_size: WIDTH });
  const bias = parameters.get('quantize.embedding_proj.bias')!;
  bias.value = tf.tensor1d([0.1, -0.2, 0.3]);
  const of = (name: string) => [...parameters.get(`quantize.${name}`)!.value.dataSync<'float32'>()];
  const [c, w, b] = ['embedding.weight', 'embedding_proj.weight', 'embedding_proj.bias'].map(of);
  const codebook = Array.from({ length: ENTRIES }, (_, n) =>
    b.map((offset, j) => b.reduce((sum, _, k) => sum + c[n * WIDTH + k] * w[j * WIDTH + k], offset)),
  );
  return { quantizer, parameters, codebook };
}

describeEngines('SimVQ', () => {
  it('has a frozen random codebook, and one linear layer that is trained', () => {
    const { parameters } = openQuantizer('simvq', { codebook_size: 4096, token_size: 16 });
    expect([...parameters].map(({ name, buffer }) => [name, buffer])).toEqual([
      ['quantize.embedding.weight', true],
      ['quantize.embedding_proj.weight', false],
      ['quantize.embedding_proj.bias', false],
    ]);
    const values = parameters.get('quantize.embedding.weight')!.value;
    expect(values.mean().dataSync()[0]).toBeCloseTo(0, 2);
    expect(values.square().mean().dataSync()[0]).toBeCloseTo(1 / 16, 3);
  });

  it('selects the nearest of the projected entries', () => {
    const { quantizer, codebook } = open();
    const z = latents();
    const rows = z.reshape([ROWS, WIDTH]).arraySync() as number[][];
    const distance = (a: number[], e: number[]) => a.reduce((sum, x, i) => sum + (x - e[i]) ** 2, 0);
    const nearest = rows.map((row) => {
      const distances = codebook.map((entry) => distance(row, entry));
      return distances.indexOf(Math.min(...distances));
    });
    expect(new Set(nearest).size).toBeGreaterThan(5);
    const { tokens, indices, loss } = quantizer.quantize(z);
    expect([...indices.dataSync()]).toEqual(nearest);
    const expected = nearest.flatMap((n) => codebook[n]);
    for (const found of [tokens, quantizer.lookup(indices.reshape([2, ROWS / 2]))]) {
      const values = found.dataSync();
      for (const [i, value] of expected.entries()) expect(values[i]).toBeCloseTo(value, 5);
    }
    const error = rows.reduce((sum, row, i) => sum + distance(row, codebook[nearest[i]]), 0);
    expect(loss!.dataSync()[0]).toBeCloseTo((1.25 * error) / (ROWS * WIDTH), 5);
  });

  it('trains the layer and the latents, and not the codebook', () => {
    const { quantizer, parameters, codebook } = open();
    const z = latents();
    const [c, w, b] = [...parameters].map((p) => p.value);
    const { grads } = tf.engine().gradients(
      () => quantizer.quantize(z).loss!,
      [c, w, b, z],
      undefined,
      true, // the codebook may have no gradient
    );
    const [, byWeight, byBias, byLatents] = grads.map((gradient) => gradient?.dataSync());
    // By b: 2·mean over all numbers of (q − z), since each row's q contains b once.
    const chosen = quantizer.quantize(z).indices.arraySync();
    const rows = z.reshape([ROWS, WIDTH]).arraySync() as number[][];
    const frozen = c.arraySync() as number[][];
    for (let j = 0; j < WIDTH; j++) {
      const pull = rows.map((row, i) => (2 * (codebook[chosen[i]][j] - row[j])) / (ROWS * WIDTH));
      expect(byBias![j]).toBeCloseTo(
        pull.reduce((a, g) => a + g, 0),
        5,
      );
      for (let k = 0; k < WIDTH; k++)
        expect(byWeight![j * WIDTH + k]).toBeCloseTo(
          pull.reduce((a, g, i) => a + g * frozen[chosen[i]][k], 0),
          5,
        );
      for (const [i, g] of pull.entries()) expect(byLatents![i * WIDTH + j]).toBeCloseTo(-0.25 * g, 5);
    }
    const through = tf.grad((x) =>
      quantizer
        .quantize(x as tf.Tensor3D)
        .tokens.mul([2, 3, 5])
        .sum(),
    )(z);
    expect([...through.dataSync().slice(0, 6)]).toEqual([2, 3, 5, 2, 3, 5]);
  });
});

it('the config omits settings that it does not use', () => {
  const load = (...overrides: string[]) => loadConfig(undefined, ['tokenizer.quantizer=simvq', ...overrides]);
  expect(load().tokenizer_training.stage1.clustering).toBe(false);
  expect(() => load('tokenizer_training.stage1.clustering=true')).toThrow(/simvq has no clustering update/);
  expect(() => load('tokenizer.l2_normalize=true')).toThrow(
    /l2_normalize: is read by tokenizer\.quantizer=vq/,
  );
  expect(() => load('tokenizer.fsq_levels=[8, 8]')).toThrow(
    /fsq_levels: is read by tokenizer\.quantizer=fsq/,
  );
});
