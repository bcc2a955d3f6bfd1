import * as tf from '@tensorflow/tfjs';
import { expect, test } from 'vitest';
import { CheckpointError } from '../../src/errors.js';
import { ones, zeros } from '../../src/nn/initializers.js';
import { type ParameterSource, Parameters } from '../../src/nn/parameters.js';
import { Random } from '../../src/random.js';

function model(): Parameters {
  const parameters = new Parameters();
  const scope = parameters.scope('decoder').at(0);
  scope.parameter('weight', [2, 3], ones);
  scope.parameter('bias', [3], zeros);
  scope.buffer('usage', [4], zeros);
  parameters.initialize(Random.of(0));
  return parameters;
}

function source(shapes: Record<string, number[]>): ParameterSource {
  return {
    path: 'model.safetensors',
    tensors: new Map(Object.entries(shapes).map(([name, shape]) => [name, { shape }])),
    readFloat32: async (name) => new Float32Array(shapes[name].reduce((a, b) => a * b, 1)).fill(7),
  };
}

const FITTING = { 'decoder.0.weight': [2, 3], 'decoder.0.bias': [3], 'decoder.0.usage': [4] };

test('names are paths, and buffers do not count as parameters', () => {
  const parameters = model();
  expect([...parameters].map((p) => p.name)).toEqual(Object.keys(FITTING));
  expect(parameters.count).toBe(9);
});

test('a matching file sets all values', async () => {
  const parameters = model();
  await parameters.load(source(FITTING));
  for (const p of parameters) expect(new Set(p.value.dataSync())).toEqual(new Set([7]));
});

test('a file that does not match is refused with names and shapes, and nothing changes', async () => {
  const parameters = model();
  const wrong = source({ 'decoder.0.weight': [3, 2], 'decoder.0.usage': [4], 'encoder.x': [1] });
  const loading = parameters.load(wrong);
  await expect(loading).rejects.toThrow(CheckpointError);
  await expect(loading).rejects.toThrow(
    'model.safetensors does not fit this model; misshapen: decoder.0.weight is [3,2], expected [2,3]; ' +
      'missing: decoder.0.bias; unexpected: encoder.x; use the config it was trained with',
  );
  expect([...parameters.get('decoder.0.weight')!.value.dataSync()]).toEqual([1, 1, 1, 1, 1, 1]);
});

test('long lists of names end in a count', async () => {
  const extra = Object.fromEntries(Array.from({ length: 5 }, (_, i) => [`x${i}`, [1]]));
  await expect(model().load(source({ ...FITTING, ...extra }))).rejects.toThrow(
    'unexpected: x0, x1, x2, … (5 in all)',
  );
});

test('an optional buffer may be absent, and tensors to ignore may be present', async () => {
  const parameters = model();
  parameters.get('decoder.0.usage')!.value = tf.ones([4]);
  const { 'decoder.0.usage': _, ...without } = FITTING;
  await parameters.load(source({ ...without, 'aux.y': [1] }), { optional: /usage$/, ignore: /^aux\./ });
  expect([...parameters.get('decoder.0.usage')!.value.dataSync()]).toEqual([0, 0, 0, 0]);
});
