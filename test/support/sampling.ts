import * as tf from '@tensorflow/tfjs';
import type { WeightKind } from '../../src/engine/ops/index.js';
import { Generator } from '../../src/models/generator/generator.js';
import { Random } from '../../src/random.js';
import { packWeights } from '../../src/sample/pack-weights.js';
import { type SampleOptions, sampleCodes } from '../../src/sample/sampler.js';

type Sizes = ConstructorParameters<typeof Generator>[0];

/** A generator with meaningful logits: in a newly initialized one, the last layer is zero. */
export function drawingGenerator(sizes: Sizes, weights: WeightKind = 'float32'): Generator {
  const generator = new Generator(sizes);
  generator.parameters.initialize(Random.of(1, 'test'));
  const last = generator.parameters.get('output.weight')!;
  last.value = tf.randomNormal(last.shape as number[], 0, 0.3, 'float32', 2);
  if (weights !== 'float32') packWeights(generator, weights);
  return generator;
}

/** The codes of an image of each class, always from the same random numbers. */
export async function codesOf(
  generator: Generator,
  classes: readonly number[],
  options: Partial<SampleOptions> = {},
  onStep?: (done: number) => void,
): Promise<number[][]> {
  const randoms = classes.map((_, i) => Random.of(3, `image ${i}`));
  const all = { guidance: { scale: 3, power: 1 }, temperature: 1, top_k: 0, top_p: 1, ...options };
  const codes = await sampleCodes(generator, classes, all, randoms, { onStep });
  const values = (await codes.array()) as number[][];
  codes.dispose();
  return values;
}
