import * as tf from '@tensorflow/tfjs';

/** A linear layer's weight (out, in) as it is kept, a scale for each of its rows if it is in int8, and its bias. */
export interface StepLayer {
  weight: tf.Tensor;
  scale?: tf.Tensor;
  bias?: tf.Tensor;
}

/** A block of the generator: the scales of its RMSNorms, and its linear layers. */
export interface StepBlock {
  norms: Record<'norm1' | 'qNorm' | 'kNorm' | 'norm2', tf.Tensor>;
  layers: Record<'qkv' | 'proj' | 'w1' | 'w3' | 'w2', StepLayer>;
  /** Whether the layers' weights are packed. */
  packed: boolean;
}

/** Where a decoding step stands. */
export interface StepPlace {
  /** The rotary rows (T, D/2) of all positions. */
  cos: tf.Tensor2D;
  sin: tf.Tensor2D;
  /** The one at hand, (1) int32: how many rows of the caches are filled. */
  position: tf.Tensor1D;
  /** Keys and values (B, Tmax, H, D) of each block, and what `joinLayers` made of it. */
  caches: readonly { k: tf.Tensor4D; v: tf.Tensor4D; joined?: tf.Tensor }[];
}

/** What an engine says of itself that has kernels for steps of sampling. */
export interface Stepping {
  /** Whether it would do a step of so many sequences, with layers and heads of such widths. */
  takesStep?(sequences: number, widths: readonly number[], headWidth: number): boolean;
}

/** Whether `generatorStep` can take so many sequences through such blocks with the engine that is running. */
export function hasGeneratorStep(sequences: number, [{ norms, layers }]: readonly StepBlock[]): boolean {
  const widths = Object.values(layers).map(({ weight }) => weight.shape[1]!);
  return (tf.backend() as Stepping).takesStep?.(sequences, widths, norms.qNorm.shape[0]) ?? false;
}

const JOIN = 'alitok.JoinLayers';

/** The weights of w1 and w3 as one, for engines that multiply faster by both at once; it is the caller's. */
export function joinLayers({ layers: { w1, w3 }, packed }: StepBlock): tf.Tensor | undefined {
  if (!tf.getKernel(JOIN, tf.getBackend())) return undefined;
  const [joined] = tf.engine().runKernel(JOIN, { w1: w1.weight, w3: w3.weight }, { packed }) as tf.Tensor[];
  return joined;
}

/**
 * All blocks for one position, and the RMSNorm after the last, without a gradient. Of a block: h = x + proj(attention(norm1(x))),
 * then h + w2(silu(w1 n)·w3 n) with n = norm2(h), as `rmsNorm`, `linear`, `rotary`, `cacheWrite`, `attention` and `swiGLU` would
 * do it one after the other. x (B, 1, d) → (B, 1, d). Only where `hasGeneratorStep` says so.
 */
export function generatorStep(
  x: tf.Tensor,
  blocks: readonly StepBlock[],
  norm: tf.Tensor,
  { cos, sin, position, caches }: StepPlace,
  epsilon = 1e-5,
): tf.Tensor {
  const inputs: [string, tf.Tensor | undefined][] = Object.entries({ x, cos, sin, position, norm });
  blocks.forEach(({ norms, layers }, i) => {
    const parts: Record<string, tf.Tensor | undefined> = { ...norms, ...caches[i] };
    for (const [name, layer] of Object.entries(layers))
      for (const [part, tensor] of Object.entries(layer)) parts[`${name}.${part}`] = tensor;
    for (const [name, tensor] of Object.entries(parts)) inputs.push([`${i}.${name}`, tensor]);
  });
  const given = Object.fromEntries(inputs.filter(([, tensor]) => tensor !== undefined));
  const [{ packed }] = blocks;
  return tf.engine().runKernel('alitok.GeneratorStep', given as tf.NamedTensorMap, {
    blocks: blocks.length,
    packed,
    epsilon,
  }) as tf.Tensor;
}
