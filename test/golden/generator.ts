import * as tf from '@tensorflow/tfjs';
import { Generator } from '../../src/models/generator/generator.js';
import { openGolden } from './golden.js';

/** The reference's small generator, and the inputs of its values. */
export async function openGenerator() {
  const golden = await openGolden('generator');
  const size = (key: string) => Number(golden.metadata[key]);
  const generator = new Generator({
    width: size('hidden_size'),
    layers: size('num_hidden_layers'),
    heads: size('num_attention_heads'),
    classes: size('num_classes'),
    codebook_size: size('codebook_size'),
    prefix_tokens: size('prefix_tokens'),
    grid: size('grid'),
  });
  await golden.load(generator.parameters);
  const condition = tf.tensor1d(golden.integers('condition'), 'int32');
  const codes = tf.tensor2d(golden.integers('ids'), golden.shape('ids') as [number, number], 'int32');
  const guidance = { scale: size('guidance_scale'), power: size('guidance_scale_pow') };
  return { golden, generator, condition, codes, guidance };
}
