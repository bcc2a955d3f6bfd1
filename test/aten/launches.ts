import type { Argument, Native, TensorId } from '../../src/engine/libtorch/bridge.js';
import { schemaOf } from './schemas.js';

// The number of commands that a CUDA device gets for an ATen operator, according to PyTorch's source code, not measured. An
// operator that is not listed here counts as one command.

/** For kernels on lists of tensors: chunks per launch, elements per chunk, and the number of tensors that fit in the arguments. */
const LISTS = { chunks: 320, size: 65536, tensors: 30 };

/** Number of kernels for sorting keys, for the gradient of an embedding table, which sorts, and for attention's gradients. */
const SEVERAL: Record<string, number> = {
  'sort.stable': 4,
  embedding_dense_backward: 6,
  _scaled_dot_product_flash_attention_backward: 3,
  _scaled_dot_product_efficient_attention_backward: 2,
  searchsorted: 1,
};

/** Number of PyTorch operators that our own operators call: sums over parts, and the increment of the position. */
const WITHIN: Record<string, number> = {
  rms_norm_grad: 1,
  layer_norm_grad: 1,
  norm_rotary_grad: 1,
  draw_step: 1,
};

/** Whether a tensor's first two axes can be merged into one, so that its matrices need not be copied for batched products. */
function isBatch(x: TensorId, native: Native): boolean {
  const shape = native.shape(x);
  if (shape.length < 4) return true;
  const stride = (axis: number) => native.call(native.find('aten::stride', 'int')!, x, axis) as number;
  return shape[0] === 1 || shape[1] === 1 || stride(0) === shape[1] * stride(1);
}

function ofLists(args: readonly Argument[], native: Native): number {
  const list = args.find((arg) => Array.isArray(arg)) as TensorId[];
  const sizes = list.map((id) => native.shape(id).reduce((a, b) => a * b, 1));
  const chunks = sizes.reduce((sum, size) => sum + Math.ceil(size / LISTS.size), 0);
  return Math.max(Math.ceil(list.length / LISTS.tensors), Math.ceil(chunks / LISTS.chunks));
}

/** The number of commands for one call, without our own kernels, which are counted where they are launched. */
export function launchesOf(name: string, args: readonly Argument[], result: unknown, native: Native): number {
  if (name.startsWith('alitok::')) return WITHIN[name.slice('alitok::'.length)] ?? 0;
  if (/^(_foreach|_fused_adamw)/.test(name)) return ofLists(args, native);
  if (name === 'matmul') return 1 + [args[0], args[1]].filter((x) => !isBatch(x as TensorId, native)).length;
  const [results] = [result].flat();
  const address = (id: unknown) => native.call(native.find('alitok_emulated::address', '')!, id as TensorId);
  const given = typeof args[0] === 'number' && schemaOf(name)?.parameters[0]?.type === 'Tensor';
  const gives = /-> Tensor/.test(schemaOf(name)?.text ?? '');
  if (!gives) return 0; // a number that the host knows, such as a stride
  const writes = /\([a-z]!/.test(schemaOf(name)?.text ?? '');
  // A view, or a conversion to the type that the tensor already has.
  if (given && !writes && address(results) === address(args[0])) return 0;
  if (given && !writes && schemaOf(name)!.aliases && /narrow|select|slice|split|unbind/.test(name)) return 0;
  return SEVERAL[name] ?? 1;
}
