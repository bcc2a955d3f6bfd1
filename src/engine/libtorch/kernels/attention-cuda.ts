import type { Native, TensorId } from '../bridge.js';
import type { Kernel } from './register.js';

// Attention by the kernels that PyTorch has had for CUDA since 2.1, on heads-first views (B, H, T, D): "flash" for bfloat16,
// "efficient" for float32. Their gradients need intermediate results of the forward pass, so the gradient runs it again, as
// our own kernels do.

const FLASH = '_scaled_dot_product_flash_attention';
const EFFICIENT = '_scaled_dot_product_efficient_attention';
export type Fused = typeof FLASH | typeof EFFICIENT;

/**
 * A part of each gradient's schema that the calls below are written for. PyTorch 2.0 has operators of the same names with
 * other parameters.
 */
const EXPECTED: Record<Fused, string> = {
  [FLASH]: 'float dropout_p, bool is_causal, Tensor philox_seed, Tensor philox_offset',
  [EFFICIENT]:
    'Tensor attn_bias, Tensor out, Tensor logsumexp, Tensor philox_seed, Tensor philox_offset, float dropout_p, bool[4] grad_input_mask, bool is_causal',
};

/**
 * Which kernel to use for an answer of `_fused_sdp_choice`, which knows the device and how PyTorch was built. 0 is PyTorch's
 * composition of products, for which we have our own. Wherever cuDNN's kernel (3) can run, flash can.
 */
const TAKEN: Record<number, Fused> = { 1: FLASH, 2: EFFICIENT, 3: FLASH };

/** Head widths that all of these kernels and their gradients support. */
const WIDTH = { multiple: 8, most: 128 };

export type Triple = readonly [q: TensorId, k: TensorId, v: TensorId];

/** Answers already known for each library, by everything they depend on. */
const answers = new WeakMap<Native, Map<string, Fused | undefined>>();

/**
 * The fused kernel that can compute this attention, or undefined. These kernels support only square causal masks, and no
 * dropout by our hash.
 * @param inputs returns q, k and v in the type to multiply in
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

/** Indices of the flash kernel's results that are tensors; the others are plain numbers. */
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
  return gradients.slice(0, 3).map(drop); // the fourth, by a mask, was not requested and is undefined
}
