import type { TensorInfo } from '@tensorflow/tfjs';
import { generatorStepOp } from '../../ops/generator-step.js';
import { int, listOf, Type } from '../backend.js';
import type { Handle } from '../binding.js';
import { rotate, rotation, writeRows } from './attention.js';
import { layerOf, multiply } from './linear.js';
import { rms, rmsScale } from './normalization.js';
import { product, productByTransposed } from './products.js';
import { implement, type Kernel } from './register.js';

const TWO = listOf(2, Type.float32);

/** What all blocks of a step share. */
interface Place {
  /** The number of filled positions of the caches, with this one. */
  length: number;
  /** The position's rotation (1, 1, D/2). */
  angles: Handle;
  /** The rows of the caches that the step writes, counted over the whole batch: (B). */
  rows: Handle;
  /** δ(h, h′) (H, H, 1). */
  sameHead: Handle;
}

/**
 * Attention of one position over the filled part of the caches (B, Tmax, H, D), for q (B, H, D) that has been scaled:
 * (B, H·D). A matrix with each head's query in that head's own channels and zeros elsewhere multiplies the caches as they lie in
 * memory: a product for each head would need a copy of them with the heads first.
 */
function attend(kernel: Kernel, q: Handle, k: Handle, v: Handle, { length, sameHead }: Place): Handle {
  const { use, last, free, ints, reshape } = kernel;
  const [batch, heads, width] = q.shape;
  const channels = heads * width;
  const filled = (cache: Handle) => {
    const part = use('Slice', [cache, ints([0, 0, 0, 0]), ints([batch, length, heads, width])]);
    return last('Reshape', [part, ints([batch, length, channels])]);
  };
  const apart = use('Mul', [reshape(q, [batch, 1, heads, width]), sameHead]);
  const keys = filled(k);
  const scores = productByTransposed(kernel, reshape(apart, [batch, heads, channels]), keys);
  free(keys);
  const values = filled(v);
  const all = product(kernel, use('Softmax', [scores]), values);
  free(values);
  const own = use('Mul', [reshape(all, [batch, heads, heads, width]), sameHead]);
  return reshape(use('Sum', [own, ints([1])]), [batch, channels]);
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
  return tensorflow.derived(q, () => {
    const scaled = use('Mul', [handle(q), number(1 / Math.sqrt(q.shape[0]))]);
    return kept(reshape(use('Pack', [scaled, handle(k)], TWO), [2, 1, q.shape[0]]));
  });
}

/** A whole decoding step. */
export function registerGeneratorStep(): void {
  implement(generatorStepOp, (inputs, { blocks, epsilon }, kernel) => {
    const { handle, use, uses, ints, changingInts, number, reshape, tensorflow, out } = kernel;
    const position = tensorflow.integer(inputs.position);
    const given = inputs as Record<string, TensorInfo | undefined>;
    const [batch, , width] = inputs.x.shape;
    const [, capacity, heads, headWidth] = given['0.k']!.shape;
    const row = changingInts([position]);
    const at = (table: TensorInfo) => use('GatherV2', [handle(table), row, ints(0)]);
    const place: Place = {
      length: position + 1,
      angles: rotation(kernel, at(inputs.cos), at(inputs.sin)),
      rows: changingInts(Array.from({ length: batch }, (_, b) => b * capacity + position)),
      sameHead: reshape(use('MatrixDiag', [use('Fill', [ints([heads]), number(1)])]), [heads, heads, 1]),
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
      const turned = rotate(kernel, normalized, place.angles, [batch, 1, 2 * heads, headWidth]);
      const [q, k] = uses('Unpack', [turned], [int('num', 2), int('axis', 1)], 2);
      writeRows(kernel, own('k'), place.rows, k);
      writeRows(kernel, own('v'), place.rows, v);
      const h = use('AddV2', [x, layer(attend(kernel, q, own('k'), own('v'), place), 'proj')]);
      const n = rms(kernel, h, own('norm2'), epsilon);
      const gate = layer(n, 'w1');
      const silu = use('Mul', [gate, use('Sigmoid', [gate])]);
      x = use('AddV2', [h, layer(use('Mul', [silu, layer(n, 'w3')]), 'w2')]);
    }
    return out(reshape(rms(kernel, x, handle(inputs.norm), epsilon), inputs.x.shape));
  });
}
