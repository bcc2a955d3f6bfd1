import type { TensorInfo } from '@tensorflow/tfjs';
import { EngineError } from '../../../errors.js';
import { generatorStepOp } from '../../ops/generator-step.js';
import { int, listOf, Type } from '../backend.js';
import type { Handle } from '../binding.js';
import { filled, rotate, rotation, writeRows } from './attention.js';
import { layerOf, multiply } from './linear.js';
import { rms, rmsScale } from './normalization.js';
import { product, productByTransposed } from './products.js';
import { implement, type Kernel } from './register.js';

const TWO = listOf(2, Type.float32);

/** Attention of one position over the filled part of the caches (B, H, Tmax, D), for q (B, H, D) that has been scaled: (B, H·D). */
function attend(kernel: Kernel, q: Handle, k: Handle, v: Handle, length: number): Handle {
  const { use, free, reshape } = kernel;
  const [batch, heads, width] = q.shape;
  const keys = filled(kernel, k, length);
  const scores = productByTransposed(kernel, reshape(q, [batch, heads, 1, width]), keys);
  free(keys);
  const values = filled(kernel, v, length);
  const y = product(kernel, use('Softmax', [scores]), values);
  free(values);
  return reshape(y, [batch, heads * width]);
}

/**
 * The scales of the RMSNorms of queries and keys together: (2, 1, D). That of the queries is divided by √D, which attention
 * would do next.
 */
function normScales(
  { tensorflow, handle, use, kept, number, reshape }: Kernel,
  q: TensorInfo,
  k: TensorInfo,
) {
  return tensorflow.derived([q, k], () => {
    const scaled = use('Mul', [handle(q), number(1 / Math.sqrt(q.shape[0]))]);
    return kept(reshape(use('Pack', [scaled, handle(k)], TWO), [2, 1, q.shape[0]]));
  });
}

/** A whole decoding step. */
export function registerGeneratorStep(): void {
  implement(generatorStepOp, (inputs, { blocks, epsilon }, kernel) => {
    const { handle, use, uses, ints, changingInts, reshape, tensorflow, out } = kernel;
    const position = tensorflow.integer(inputs.position);
    const given = inputs as Record<string, TensorInfo | undefined>;
    const [batch, , width] = inputs.x.shape;
    const [, capacity, heads, headWidth] = given['0.k']!.shape;
    const row = changingInts([position]);
    const at = (table: TensorInfo) => use('GatherV2', [handle(table), row, ints(0)]);
    const angles = rotation(kernel, at(inputs.cos), at(inputs.sin));
    // The rows that the step writes: one for each sequence and head.
    const rows = changingInts(Array.from({ length: batch * heads }, (_, i) => i * capacity + position));
    const cache = (name: string) => {
      const handle = tensorflow.cache(given[name]!);
      if (!handle) throw new EngineError('the caches of generatorStep are those of newCache');
      return handle;
    };
    let x = reshape(handle(inputs.x), [batch, width]);
    for (let i = 0; i < blocks; i++) {
      const own = (name: string) => handle(given[`${i}.${name}`]!);
      const layer = (input: Handle, name: string) => {
        const part = (tensor: string) => given[`${i}.${name}.${tensor}`];
        const tensors = { weight: part('weight')!, scale: part('scale'), bias: part('bias') };
        return multiply(kernel, input, layerOf(kernel, tensors));
      };
      const qkv = reshape(layer(rms(kernel, x, own('norm1'), epsilon), 'qkv'), [batch, 3, heads, headWidth]);
      // Queries and keys together, (B, 2, H, D): for `rotate` that is twice as many heads of one position.
      const [qk, v] = uses('SplitV', [qkv, ints([2, 1]), ints(1)], [int('num_split', 2)], 2);
      const scales = normScales(kernel, given[`${i}.qNorm`]!, given[`${i}.kNorm`]!);
      const normalized = use('Mul', [use('Mul', [qk, rmsScale(kernel, qk, epsilon)]), scales]);
      const turned = rotate(kernel, normalized, angles, [batch, 1, 2 * heads, headWidth]);
      const [q, k] = uses('Unpack', [turned], [int('num', 2), int('axis', 1)], 2);
      const [keys, values] = [cache(`${i}.k`), cache(`${i}.v`)];
      writeRows(kernel, keys, rows, k, [headWidth]);
      writeRows(kernel, values, rows, v, [headWidth]);
      const h = use('AddV2', [x, layer(attend(kernel, q, keys, values, position + 1), 'proj')]);
      const n = rms(kernel, h, own('norm2'), epsilon);
      const gate = layer(n, 'w1');
      const silu = use('Mul', [gate, use('Sigmoid', [gate])]);
      x = use('AddV2', [h, layer(use('Mul', [silu, layer(n, 'w3')]), 'w2')]);
    }
    return out(reshape(rms(kernel, x, handle(inputs.norm), epsilon), inputs.x.shape));
  });
}
