import * as tf from '@tensorflow/tfjs';
import { expect, it } from 'vitest';
import { Generator } from '../../src/models/generator/generator.js';
import { Tokenizer } from '../../src/models/tokenizer/tokenizer.js';
import { Random } from '../../src/random.js';
import { describeEngines } from '../support/engines.js';
import { TOKENIZER, TRANSFORMER } from '../support/small-sizes.js';

/** Bytes at the peak of `run`, beyond those before. */
async function peakOf(run: () => tf.Tensor): Promise<number> {
  const before = tf.memory().numBytes;
  const { peakBytes } = await tf.profile(() => tf.tidy(run));
  return peakBytes - before;
}

describeEngines('memory of a forward pass', () => {
  it('does not grow with the layers but by their outputs: what a block computes is freed when the block ends', async () => {
    const batch = 8;
    const peaks = [];
    for (const layers of [2, 8]) {
      const size = { ...TRANSFORMER, layers };
      const tokenizer = new Tokenizer(
        { ...TOKENIZER, encoder: size, decoder: { ...size, class_tokens: 2 }, l2_normalize: false },
        2,
      );
      tokenizer.parameters.initialize(Random.of(0));
      const generator = new Generator({
        ...size,
        ...{ classes: 2, codebook_size: 16, prefix_tokens: 3, grid: 2 },
      });
      generator.parameters.initialize(Random.of(0));
      const codes = tf.zeros([batch, 7], 'int32') as tf.Tensor2D;
      const conditions = tf.fill([batch], 17, 'int32') as tf.Tensor1D;
      generator.forward(conditions, codes).dispose(); // makes the rotary tables
      peaks.push({
        tokenizer: await peakOf(() => tokenizer.forward(tf.zeros([batch, 16, 16, 3])).image),
        generator: await peakOf(() => generator.forward(conditions, codes)),
      });
      tf.dispose([codes, conditions]);
      tokenizer.parameters.dispose();
      generator.dispose();
    }
    const [few, many] = peaks;
    expect(many.tokenizer / few.tokenizer).toBeLessThan(1.4);
    expect(many.generator / few.generator).toBeLessThan(1.4);
  });
});
