import * as tf from '@tensorflow/tfjs';
import { expect, it } from 'vitest';
import { Generator } from '../../src/models/generator/generator.js';
import { isAdapter, merged, mergeInPlace } from '../../src/nn/lora.js';
import { Random } from '../../src/random.js';
import { sampleCodes } from '../../src/sample/sampler.js';
import { expectClose } from '../golden/golden.js';
import { describeEngines } from '../support/engines.js';

const SIZES = {
  ...{ width: 32, layers: 2, heads: 4, classes: 3, codebook_size: 16 },
  ...{ prefix_tokens: 3, grid: 2 },
};
const LORA = { rank: 4, alpha: 6 };

/** A generator whose adapters and output layer are not zero. */
function adapted(): Generator {
  const generator = new Generator(SIZES, { lora: LORA });
  generator.parameters.initialize(Random.of(0, 'base'));
  for (const p of generator.parameters)
    if (/lora_B|output\.weight/.test(p.name))
      p.value = tf.tidy(() => tf.randomNormal(p.shape as number[], 0, 0.2, 'float32', 7));
  return generator;
}

const logitsOf = (generator: Generator) =>
  tf.tidy(() => {
    const codes = tf.tensor2d([[1, 5, 9, 2, 15, 0, 7]], [1, 7], 'int32');
    return generator.forward(tf.tensor1d([generator.conditionOf(1)], 'int32'), codes);
  });

describeEngines('low-rank adaptation', () => {
  it('fresh adapters change nothing, and there is one for each linear layer of the blocks', () => {
    const [plain, generator] = [new Generator(SIZES), new Generator(SIZES, { lora: LORA })];
    for (const one of [plain, generator]) {
      one.parameters.initialize(Random.of(0, 'base'));
      one.parameters.get('output.weight')!.value = tf.randomNormal([16, 32], 0, 0.2, 'float32', 7);
    }
    expect([...generator.parameters].filter(isAdapter)).toHaveLength(2 * 5 * SIZES.layers);
    expectClose('logits', logitsOf(generator), logitsOf(plain).dataSync<'float32'>(), 1e-6);
    plain.dispose();
    generator.dispose();
  });

  it('merged weights compute what the adapters compute', async () => {
    const generator = adapted();
    const expected = logitsOf(generator).dataSync<'float32'>();
    const plain = new Generator(SIZES);
    for (const saved of merged(generator.parameters, generator.parameters, LORA))
      plain.parameters.get(saved.name)!.value = tf.tensor(await saved.read(), saved.shape as number[]);
    expectClose('logits of merged weights', logitsOf(plain), expected, 1e-5);

    const inPlace = new Generator(SIZES);
    for (const p of inPlace.parameters) p.value = generator.parameters.get(p.name)!.value.clone();
    const adapters = generator.parameters.filter(isAdapter);
    mergeInPlace(inPlace.parameters, adapters, LORA);
    expectClose('logits after merging in place', logitsOf(inPlace), expected, 1e-5);

    const options = { guidance: { scale: 0, power: 1 }, temperature: 0, top_k: 0, top_p: 1 };
    const [codes, same] = [
      await sampleCodes(generator, [0, 1, 2], options),
      await sampleCodes(inPlace, [0, 1, 2], options),
    ];
    expect([...codes.dataSync()]).toEqual([...same.dataSync()]); // the adapters take part in decoding
    for (const one of [generator, plain, inPlace]) one.dispose();
  });

  it('frozen weights have the same gradient by the input, whether activations are kept or not', () => {
    const generator = adapted();
    const loss = (checkpointActivations: boolean) => () => {
      const codes = tf.tensor2d([[1, 5, 9, 2, 15, 0, 7]], [1, 7], 'int32');
      const condition = tf.tensor1d([generator.conditionOf(1)], 'int32');
      return generator.loss(generator.forward(condition, codes, { checkpointActivations }), codes);
    };
    const trained = [...generator.parameters].filter((p) => isAdapter(p) || p.name.startsWith('embeddings'));
    const gradients = (checkpointing: boolean) =>
      tf.tidy(() =>
        tf
          .engine()
          .gradients(
            loss(checkpointing),
            trained.map((p) => p.value),
          )
          .grads.map((g) => g.dataSync()),
      );
    const expected = gradients(false);
    for (const p of generator.parameters) p.frozen = !trained.includes(p);
    for (const checkpointing of [false, true])
      gradients(checkpointing).forEach((gradient, i) => {
        expectClose(trained[i].name, tf.tensor1d([...gradient]), expected[i] as Float32Array, 1e-5);
      });
    generator.dispose();
  });
});
