import * as tf from '@tensorflow/tfjs';
import { stopGradient } from '../../../engine/ops/index.js';
import type { TokenizerConfig } from '../../geometry.js';
import type { Quantized, Quantizer, QuantizerKind } from './quantizer.js';

/** How far the bound stays away from the outermost levels, relative to their distance: as in the paper's code. */
const EPSILON = 1e-3;

/**
 * Finite scalar quantization (Mentzer et al., arXiv 2309.15505, appendix A.1). Channel i of a latent is bounded and rounded
 * to one of L_i levels. A code is the number whose mixed-radix digits the levels are, channel 0 the lowest. There is no
 * codebook, nothing is learned, and there is no loss.
 */
class FiniteScalarQuantizer implements Quantizer {
  readonly identity: string;

  constructor(private readonly levels: readonly number[]) {
    this.identity = `fsq ${levels.join()}\n`;
  }

  /**
   * z (R, d) → (R, d): numbers that round to L_i different integers in channel i. An even number of levels has no middle one,
   * so that an offset of half a level makes them −L/2 to L/2 − 1.
   */
  private bound(z: tf.Tensor2D): tf.Tensor2D {
    const half = this.levels.map((levels) => ((levels - 1) * (1 - EPSILON)) / 2);
    const offset = this.levels.map((levels) => (levels % 2 === 0 ? 0.5 : 0));
    const shift = offset.map((o, i) => Math.tan(o / half[i]));
    return z.add(shift).tanh().mul(half).sub(offset) as tf.Tensor2D;
  }

  /** ⌊L/2⌋ of each channel: what a rounded number is divided by to lie in [−1, 1], and the digit of zero. */
  private get middle(): number[] {
    return this.levels.map((levels) => Math.floor(levels / 2));
  }

  /** What a digit of each channel counts in a code: 1, L_0, L_0·L_1, … */
  private get places(): number[] {
    return this.levels.map((_, i) => this.levels.slice(0, i).reduce((a, b) => a * b, 1));
  }

  quantize(z: tf.Tensor3D): Quantized {
    const rows = z.reshape([-1, this.levels.length]) as tf.Tensor2D;
    const bounded = this.bound(rows);
    const rounded = stopGradient(bounded).round();
    const tokens = bounded.add(stopGradient(rounded.sub(bounded))).div(this.middle);
    // NaN stays in the tokens, where training notices it; a code must be one that exists.
    const digits = tf.where(rounded.isNaN(), 0, rounded.add(this.middle)).toInt();
    const indices = digits.mul(tf.tensor1d(this.places, 'int32')).sum(-1).toInt() as tf.Tensor1D;
    return { tokens: tokens.reshape(z.shape), indices, latents: stopGradient(rows) };
  }

  lookup(indices: tf.Tensor2D): tf.Tensor3D {
    const quotients = tf.floorDiv(indices.expandDims(-1), tf.tensor1d(this.places, 'int32')); // (B, T, d)
    const levels = tf.tensor1d([...this.levels], 'int32');
    const digits = quotients.sub(tf.floorDiv(quotients, levels).mul(levels));
    return digits.toFloat().sub(this.middle).div(this.middle) as tf.Tensor3D;
  }
}

/** What is wrong with the levels: they decide the number of codes and the width of a token. */
function check({ fsq_levels, codebook_size, token_size }: TokenizerConfig) {
  if (!fsq_levels)
    return {
      key: 'fsq_levels' as const,
      message:
        'is missing: tokenizer.quantizer=fsq needs the number of levels of each channel, such as [8, 8, 8, 6, 5]',
    };
  const codes = fsq_levels.reduce((a, b) => a * b, 1);
  const width = fsq_levels.length;
  if (codes === codebook_size && width === token_size) return undefined;
  return {
    key: 'fsq_levels' as const,
    message: `[${fsq_levels.join(', ')}] makes ${codes} codes of ${width} numbers, not ${codebook_size} of ${token_size}; set tokenizer.codebook_size=${codes} and tokenizer.token_size=${width}`,
  };
}

export const fsq: QuantizerKind = {
  title: 'finite scalar quantization',
  settings: ['fsq_levels'],
  clusters: false,
  check,
  flops: () => 0,
  create: (_, { fsq_levels }) => new FiniteScalarQuantizer(fsq_levels!),
};
