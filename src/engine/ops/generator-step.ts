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
}

/** Where a decoding step stands: the rotary rows (1, D/2) of its position, and the block's caches (B, Tmax, H, D). */
export interface StepPlace {
  cos: tf.Tensor2D;
  sin: tf.Tensor2D;
  k: tf.Tensor4D;
  v: tf.Tensor4D;
  /** How many rows of the caches are filled. */
  position: number;
}

/** What an engine says of itself that has the kernel. */
interface Stepping {
  /** Whether it would do a step of so many sequences, with layers of such widths. */
  takesStep?(sequences: number, widths: number[]): boolean;
}

/** Whether `generatorStep` can take x (B, 1, d) through `block` with the engine that is running. */
export function hasGeneratorStep(x: tf.Tensor, block: StepBlock): boolean {
  const widths = Object.values(block.layers).map(({ weight }) => weight.shape[1]!);
  return (tf.backend() as Stepping).takesStep?.(x.shape[0], widths) ?? false;
}

/**
 * A whole block for one position, without a gradient: h = x + proj(attention(norm1(x))), then h + w2(silu(w1 n)·w3 n) with
 * n = norm2(h), as `rmsNorm`, `linear`, `rotary`, `cacheWrite`, `attention` and `swiGLU` would do it one after the other.
 * x (B, 1, d) → (B, 1, d). Only where `hasGeneratorStep` says so.
 */
export function generatorStep(
  x: tf.Tensor,
  block: StepBlock,
  { position, ...place }: StepPlace,
  epsilon = 1e-5,
): tf.Tensor {
  const layers = Object.entries(block.layers).flatMap(([name, layer]) =>
    Object.entries(layer).map(([part, tensor]) => [`${name}.${part}`, tensor] as const),
  );
  const inputs = Object.entries({ x, ...place, ...block.norms, ...Object.fromEntries(layers) });
  const given = inputs.filter(([, tensor]) => tensor !== undefined);
  return tf.engine().runKernel('alitok.GeneratorStep', Object.fromEntries(given) as tf.NamedTensorMap, {
    position,
    epsilon,
  }) as tf.Tensor;
}
