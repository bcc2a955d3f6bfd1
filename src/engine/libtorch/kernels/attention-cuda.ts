import type { TensorId } from '../bridge.js';
import type { Kernel } from './register.js';

// Attention by the kernels that PyTorch has for CUDA since 2.0, on heads-first views (B, H, T, D): the "flash" ones for
// bfloat16, the "efficient" ones for float32. Their gradients want what the forward pass found besides its result, so the
// gradient runs it again, as our own kernels do.

const FLASH = '_scaled_dot_product_flash_attention';
const EFFICIENT = '_scaled_dot_product_efficient_attention';

type Triple = readonly [q: TensorId, k: TensorId, v: TensorId];

/** Whether these kernels can do it: they know no mask but one that is square, and no dropout by our hash. */
export function hasFused({ backend }: Kernel, square: boolean, causal: boolean, dropout: number): boolean {
  const operator = backend.precision === 'bf16' ? FLASH : EFFICIENT;
  return backend.device !== 'cpu' && dropout === 0 && (square || !causal) && backend.has(operator);
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
export function fusedAttention(kernel: Kernel, inputs: Triple, causal: boolean): TensorId {
  if (kernel.backend.precision === 'bf16') return flash(kernel, inputs, causal)[0];
  return efficient(kernel, inputs, causal, false)[0];
}

/** Gradients by q, k and v, freed when the kernel ends. */
export function fusedAttentionGrad(
  kernel: Kernel,
  dy: TensorId,
  inputs: Triple,
  causal: boolean,
): TensorId[] {
  const { backend, drop } = kernel;
  if (backend.precision === 'bf16') {
    const [y, sums, startsQ, startsK, longestQ, longestK, seed, offset] = flash(kernel, inputs, causal);
    const found = [y, sums, startsQ, startsK, longestQ, longestK, 0, causal, seed, offset] as const;
    return (backend.call(`${FLASH}_backward`, dy, ...inputs, ...found) as TensorId[]).map(drop);
  }
  const [y, sums, seed, offset] = efficient(kernel, inputs, causal, true);
  const found = [null, y, sums, seed, offset, 0, [true, true, true, false], causal] as const;
  const gradients = backend.call(`${EFFICIENT}_backward`, dy, ...inputs, ...found) as TensorId[];
  return gradients.slice(0, 3).map(drop); // the fourth, by a mask, is not asked for and undefined
}
