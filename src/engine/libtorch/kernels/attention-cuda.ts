import type { Native, TensorId } from '../bridge.js';
import type { Kernel } from './register.js';

// Attention by the kernels that PyTorch has for CUDA since 2.1, on heads-first views (B, H, T, D): the "flash" ones for
// bfloat16, the "efficient" ones for float32. Their gradients want what the forward pass found besides its result, so the
// gradient runs it again, as our own kernels do.

const FLASH = '_scaled_dot_product_flash_attention';
const EFFICIENT = '_scaled_dot_product_efficient_attention';
export type Fused = typeof FLASH | typeof EFFICIENT;

/**
 * What the calls below are written for, in the schemas of the gradients, which say most. PyTorch 2.0 has operators of the
 * same names that take other things.
 */
const EXPECTED: Record<Fused, string> = {
  [FLASH]: 'float dropout_p, bool is_causal, Tensor philox_seed, Tensor philox_offset',
  [EFFICIENT]:
    'Tensor attn_bias, Tensor out, Tensor logsumexp, Tensor philox_seed, Tensor philox_offset, float dropout_p, bool[4] grad_input_mask, bool is_causal',
};

/**
 * Which of them to take where `_fused_sdp_choice`, which knows the device and what PyTorch was built with, answers that its
 * best is one of these; for 0, its composition of products, there is ours. cuDNN's (3) can only be where flash can.
 */
const TAKEN: Record<number, Fused> = { 1: FLASH, 2: EFFICIENT, 3: FLASH };

/** Heads as wide as all of these kernels can load them, and that all of their gradients have room for. */
const WIDTH = { multiple: 8, most: 128 };

export type Triple = readonly [q: TensorId, k: TensorId, v: TensorId];

/** What was found out about each library, by all that it depends on. */
const answers = new WeakMap<Native, Map<string, Fused | undefined>>();

/**
 * The kernel that can do it, if one can. They know no mask but one that is square, and no dropout by our hash.
 * @param inputs gives q, k and v as they are to be multiplied
 */
export function fusedFor(
  { backend }: Kernel,
  inputs: () => Triple,
  { width, square, causal, dropout }: { width: number; square: boolean; causal: boolean; dropout: number },
): Fused | undefined {
  if (backend.device === 'cpu' || dropout > 0 || (causal && !square)) return undefined;
  if (width % WIDTH.multiple > 0 || width > WIDTH.most) return undefined;
  const known = answers.get(backend.native) ?? new Map<string, Fused | undefined>();
  answers.set(backend.native, known);
  const key = [backend.device, backend.precision, width, causal].join();
  if (!known.has(key)) {
    const answer = backend.has('_fused_sdp_choice')
      ? (backend.call('_fused_sdp_choice', ...inputs(), null, 0, causal) as number)
      : 0;
    const fused = TAKEN[answer];
    const fits = fused && backend.schema(`${fused}_backward`)?.includes(EXPECTED[fused]);
    known.set(key, fits ? fused : undefined);
  }
  return known.get(key);
}

/** Results of the flash kernel that are tensors; those between them are plain numbers. */
const FLASH_TENSORS = [0, 1, 2, 3, 6, 7, 8];

function flash({ backend, drop }: Kernel, inputs: Triple, causal: boolean) {
  const results = backend.call(FLASH, ...inputs, 0, causal, false) as (TensorId | null)[];
  for (const i of FLASH_TENSORS) if (results[i] !== null) drop(results[i]);
  return results as TensorId[];
}

function efficient({ backend, drop }: Kernel, inputs: Triple, causal: boolean, withSums: boolean) {
  const results = backend.call(EFFICIENT, ...inputs, null, withSums, 0, causal) as (TensorId | null)[];
  for (const result of results) if (result !== null) drop(result);
  return results as TensorId[];
}

/** softmax(q·kᵀ/√D)·v, freed when the kernel ends. */
export function fusedAttention(fused: Fused, kernel: Kernel, inputs: Triple, causal: boolean): TensorId {
  return fused === FLASH ? flash(kernel, inputs, causal)[0] : efficient(kernel, inputs, causal, false)[0];
}

/** Gradients by q, k and v, freed when the kernel ends. */
export function fusedAttentionGrad(
  fused: Fused,
  kernel: Kernel,
  dy: TensorId,
  inputs: Triple,
  causal: boolean,
): TensorId[] {
  const { backend, drop } = kernel;
  if (fused === FLASH) {
    const [y, sums, startsQ, startsK, longestQ, longestK, seed, offset] = flash(kernel, inputs, causal);
    const found = [y, sums, startsQ, startsK, longestQ, longestK, 0, causal, seed, offset] as const;
    return (backend.call(`${FLASH}_backward`, dy, ...inputs, ...found) as TensorId[]).map(drop);
  }
  const [y, sums, seed, offset] = efficient(kernel, inputs, causal, true);
  const found = [null, y, sums, seed, offset, 0, [true, true, true, false], causal] as const;
  const gradients = backend.call(`${EFFICIENT}_backward`, dy, ...inputs, ...found) as TensorId[];
  return gradients.slice(0, 3).map(drop); // the fourth, by a mask, is not asked for and undefined
}
