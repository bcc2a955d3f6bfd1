import type { TensorInfo } from '@tensorflow/tfjs';
import { generatorStepOp } from '../../ops/generator-step.js';
import { int, listOf, Type, type } from '../backend.js';
import type { Handle } from '../binding.js';
import { rotate, rotation, writeRows } from './attention.js';
import { layerOf, multiply } from './linear.js';
import { rms, rmsScale } from './normalization.js';
import { product, productByTransposed } from './products.js';
import { implement, type Kernel } from './register.js';

const TO_FLOAT = [type('DstT', Type.float32)];
const TWO = listOf(2, Type.float32);

/** What all blocks of a step share. */
interface Place {
  /** The position's rotation (1, 1, D/2). */
  angles: Handle;
  /** The rows of the caches that the step writes, counted over the whole batch: (B). */
  rows: Handle;
  /** 0 for filled positions of the caches and for this one, −∞ for later ones: (Tmax). */
  mask: Handle;
  /** δ(h, h′) (H, H, 1). */
  sameHead: Handle;
  /** 1/√D. */
  scale: Handle;
}

/**
 * Attention of one position over the caches (B, Tmax, H, D), for q (B, H, D): (B, H·D). A matrix with each head's query in that
 * head's own channels and zeros elsewhere multiplies the caches as they lie in memory: a product for each head would need a
 * copy of them with the heads first.
 */
function attend(kernel: Kernel, q: Handle, k: Handle, v: Handle, place: Place): Handle {
  const { use, ints, reshape } = kernel;
  const [batch, heads, width] = q.shape;
  const channels = heads * width;
  const flat = (cache: Handle) => reshape(cache, [batch, -1, channels]);
  const apart = use('Mul', [reshape(use('Mul', [q, place.scale]), [batch, 1, heads, width]), place.sameHead]);
  const scores = productByTransposed(kernel, reshape(apart, [batch, heads, channels]), flat(k));
  const p = use('Softmax', [use('AddV2', [scores, place.mask])]);
  const all = reshape(product(kernel, p, flat(v)), [batch, heads, heads, width]);
  const own = use('Sum', [use('Mul', [all, place.sameHead]), ints([1])]);
  return reshape(own, [batch, channels]);
}

/** A whole decoding step. */
export function registerGeneratorStep(): void {
  implement(generatorStepOp, (inputs, { blocks, epsilon }, kernel) => {
    const { handle, use, uses, ints, number, reshape, free, out } = kernel;
    const position = handle(inputs.position);
    const given = inputs as Record<string, TensorInfo | undefined>;
    const [batch, , width] = inputs.x.shape;
    const [, capacity, heads, headWidth] = given['0.k']!.shape;
    const at = (table: TensorInfo) => use('GatherV2', [handle(table), position, ints(0)]);
    const positions = use('Range', [ints(0), ints(capacity), ints(1)]);
    const later = use('Cast', [use('Greater', [positions, position])], TO_FLOAT);
    const place: Place = {
      angles: rotation(kernel, at(inputs.cos), at(inputs.sin)),
      rows: use('AddV2', [use('Range', [ints(0), ints(batch * capacity), ints(capacity)]), position]),
      // −∞·0 would be NaN: the logarithm of 1 where a key is seen, and of 0 where it is not.
      mask: use('Log', [use('Sub', [number(1), later])]),
      sameHead: reshape(use('MatrixDiag', [use('Fill', [ints([heads]), number(1)])]), [heads, heads, 1]),
      scale: number(1 / Math.sqrt(headWidth)),
    };
    let x = reshape(handle(inputs.x), [batch, width]);
    for (let i = 0; i < blocks; i++) {
      const own = (name: string) => handle(given[`${i}.${name}`]!);
      const layer = (input: Handle, name: string) => {
        const part = (tensor: string) => given[`${i}.${name}.${tensor}`];
        const tensors = { weight: part('weight')!, scale: part('scale'), bias: part('bias') };
        return multiply(kernel, input, layerOf(kernel, tensors));
      };
      const before = x;
      const qkv = reshape(layer(rms(kernel, x, own('norm1'), epsilon), 'qkv'), [batch, 3, heads, headWidth]);
      const part = (first: number, count: number) =>
        use('Slice', [qkv, ints([0, first, 0, 0]), ints([batch, count, heads, headWidth])]);
      // Queries and keys together: (B, 2, H, D), which `rotate` takes as two heads' worth for one position.
      const qk = part(0, 2);
      const weights = reshape(use('Pack', [own('qNorm'), own('kNorm')], TWO), [2, 1, headWidth]);
      const normalized = use('Mul', [use('Mul', [qk, rmsScale(kernel, qk, epsilon)]), weights]);
      const turned = rotate(kernel, reshape(normalized, [batch, 1, 2 * heads, headWidth]), place.angles);
      const together = reshape(turned, [batch, 2, heads, headWidth]);
      const [q, k] = uses('Unpack', [together], [int('num', 2), int('axis', 1)], 2);
      writeRows(kernel, own('k'), place.rows, k);
      writeRows(kernel, own('v'), place.rows, part(2, 1));
      const attended = attend(kernel, q, own('k'), own('v'), place);
      const h = use('AddV2', [x, layer(attended, 'proj')]);
      const n = rms(kernel, h, own('norm2'), epsilon);
      const gate = layer(n, 'w1');
      const silu = use('Mul', [gate, use('Sigmoid', [gate])]);
      x = use('AddV2', [h, layer(use('Mul', [silu, layer(n, 'w3')]), 'w2')]);
      free(before);
    }
    return out(reshape(rms(kernel, x, handle(inputs.norm), epsilon), inputs.x.shape));
  });
}
