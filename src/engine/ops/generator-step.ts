import * as tf from '@tensorflow/tfjs';
import { defineKernel, hasKernel } from './define.js';

/** A linear layer: its weight (out, in) as it is stored, a scale for each row if that is int8, and its bias. */
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

/** The position of a decoding step, and what depends on it. */
export interface StepPlace {
  /** The rotary rows (T, D/2) of all positions. */
  cos: tf.Tensor2D;
  sin: tf.Tensor2D;
  /** The current position, (1) int32: the number of filled rows in the caches. */
  position: tf.Tensor1D;
  /** Keys and values (B, Tmax, H, D) of each block, and the block's `joinLayers`. */
  caches: readonly { k: tf.Tensor4D; v: tf.Tensor4D; joined?: tf.Tensor }[];
}

/** The part of an engine's backend that knows whether it has kernels for steps of sampling. */
export interface Stepping {
  /** Whether it can do a step of this many sequences, with layers and heads of these widths. */
  takesStep?(sequences: number, widths: readonly number[], headWidth: number): boolean;
}

/** Whether the current engine can do `generatorStep` for this many sequences and these blocks. */
export function hasGeneratorStep(sequences: number, [{ norms, layers }]: readonly StepBlock[]): boolean {
  const widths = Object.values(layers).map(({ weight }) => weight.shape[1]!);
  return (tf.backend() as Stepping).takesStep?.(sequences, widths, norms.qNorm.shape[0]) ?? false;
}

export const joinLayersOp = defineKernel<'w1' | 'w3', { packed: boolean }, tf.Tensor[]>({
  name: 'alitok.JoinLayers',
  inputs: ['w1', 'w3'],
  instead: 'the layers stay separate',
});

/**
 * The weights of w1 and w3 as one tensor, for engines that multiply faster by both at once; undefined on others. The caller
 * disposes of it.
 */
export function joinLayers({ layers: { w1, w3 }, packed }: StepBlock): tf.Tensor | undefined {
  if (!hasKernel(joinLayersOp)) return undefined;
  return joinLayersOp({ w1: w1.weight, w3: w3.weight }, { packed })[0];
}

export const STEP_LAYERS = ['qkv', 'proj', 'w1', 'w3', 'w2'] as const;
export const STEP_NORMS = ['norm1', 'qNorm', 'kNorm', 'norm2'] as const;
type Layer = (typeof STEP_LAYERS)[number];

/** An input of `generatorStepOp` that each block has, such as `w1.weight`; block 0 gives it as `0.w1.weight`. */
export type BlockInput =
  | (typeof STEP_NORMS)[number]
  | 'k'
  | 'v'
  | 'joined'
  | `${Layer}.${'weight' | 'scale' | 'bias'}`;

export const generatorStepOp = defineKernel<
  | ('x' | 'cos' | 'sin' | 'position' | 'norm')
  | `*.${Exclude<BlockInput, 'joined' | `${Layer}.${'scale' | 'bias'}`>}`
  | `*.${'joined' | `${Layer}.${'scale' | 'bias'}`}?`,
  { blocks: number; packed: boolean; epsilon: number },
  tf.Tensor
>({
  name: 'alitok.GeneratorStep',
  inputs: [
    ...(['x', 'cos', 'sin', 'position', 'norm', '*.k', '*.v', '*.joined?'] as const),
    ...STEP_NORMS.map((norm) => `*.${norm}` as const),
    ...STEP_LAYERS.flatMap(
      (layer) => [`*.${layer}.weight`, `*.${layer}.scale?`, `*.${layer}.bias?`] as const,
    ),
  ],
  instead: "the generator's layers run one after the other",
});

/**
 * All blocks for one position, and the RMSNorm after the last, without a gradient. A block computes
 * h = x + proj(attention(norm1(x))), then h + w2(silu(w1 n)·w3 n) with n = norm2(h), like `rmsNorm`, `linear`, `rotary`,
 * `cacheWrite`, `attention` and `swiGLU` one after the other. x (B, 1, d) → (B, 1, d). Needs `hasGeneratorStep`.
 */
export function generatorStep(
  x: tf.Tensor,
  blocks: readonly StepBlock[],
  norm: tf.Tensor,
  { cos, sin, position, caches }: StepPlace,
  epsilon = 1e-5,
): tf.Tensor {
  const inputs: Record<string, tf.Tensor | undefined> = { x, cos, sin, position, norm };
  blocks.forEach(({ norms, layers }, i) => {
    for (const [name, tensor] of Object.entries(norms)) inputs[`${i}.${name}`] = tensor;
    for (const [name, tensor] of Object.entries(caches[i])) inputs[`${i}.${name}`] = tensor;
    for (const [name, layer] of Object.entries(layers))
      for (const [part, tensor] of Object.entries(layer)) inputs[`${i}.${name}.${part}`] = tensor;
  });
  const [{ packed }] = blocks;
  const given = inputs as Parameters<typeof generatorStepOp>[0];
  return generatorStepOp(given, { blocks: blocks.length, packed, epsilon });
}
