import { sizeOf } from '../../../shapes.js';
import { attentionOp, cacheWriteOp, newCacheOp, normRotaryOp, rotaryOp } from '../../ops/attention.js';
import { KEEP_DIMS, Type, type } from '../backend.js';
import type { Handle } from '../binding.js';
import { dropoutFactors } from './dropout.js';
import { rms, rmsGrad } from './normalization.js';
import { product, productByTransposed, productOfTransposed } from './products.js';
import { implement, type Kernel } from './register.js';

const HEADS_FIRST = [0, 2, 1, 3]; // (B, T, H, D) ↔ (B, H, T, D)
const AS_COMPLEX = [type('type', Type.complex64)];
const AS_FLOAT = [type('type', Type.float32)];

/** The rows of a table of angles (T, D/2) as complex numbers cos + i·sin (T, 1, D/2), or their conjugates. */
export function rotation({ use, reshape }: Kernel, cos: Handle, sin: Handle, inverse = false): Handle {
  const [tokens, half] = cos.shape;
  const angles = use('Complex', [cos, inverse ? use('Neg', [sin]) : sin]);
  return reshape(angles, [tokens, 1, half]);
}

/**
 * Rotates channel pairs of x, whose numbers lie like those of (B, T, H, D): each pair is a complex number in memory, and is
 * multiplied by `rotation`. Returns the shape of x.
 */
export function rotate(
  { use, last, reshape, ints }: Kernel,
  x: Handle,
  angles: Handle,
  [batch, tokens, heads, width] = x.shape,
): Handle {
  const pairs = use('Bitcast', [reshape(x, [batch, tokens, heads, width / 2, 2])], AS_COMPLEX);
  const turned = last('Bitcast', [use('Mul', [pairs, angles])], AS_FLOAT);
  return last('Reshape', [turned, ints(x.shape)]);
}

/** Zeroes the numbers of x (…, Tq, Tk) at every key that the query must not see, whatever was there before. */
function band({ last, ints }: Kernel, x: Handle): Handle {
  const [queries, keys] = x.shape.slice(-2);
  return last('MatrixBandPart', [x, ints(-1), ints(keys - queries)]);
}

/** 0 where a query of `queries` sees a key of `keys`, −∞ elsewhere: (Tq, Tk). */
function causalMask({ tensorflow, use, number, ints }: Kernel, queries: number, keys: number): Handle {
  return tensorflow.constant(`causal mask ${queries} ${keys}`, () => {
    const hidden = use('Fill', [ints([queries, keys]), number(Number.NEGATIVE_INFINITY)]);
    const seen = use('MatrixBandPart', [use('OnesLike', [hidden]), ints(-1), ints(keys - queries)]);
    const visible = use('Equal', [seen, number(1)]);
    return tensorflow.run('SelectV2', [visible, use('ZerosLike', [hidden]), hidden], [], 1)[0];
  });
}

/** softmax(q·kᵀ/√D) (B, H, Tq, Tk) for q, k (B, H, T, D). */
function probabilities(kernel: Kernel, q: Handle, k: Handle, causal: boolean): Handle {
  const { use, last, free, number } = kernel;
  const [queries, width] = q.shape.slice(-2);
  const scaled = use('Mul', [q, number(1 / Math.sqrt(width))]);
  let scores = productByTransposed(kernel, scaled, k);
  free(scaled);
  if (causal && queries > 1) {
    scores = band(kernel, scores);
    const masked = use('AddV2', [scores, causalMask(kernel, queries, k.shape[2])]);
    free(scores);
    scores = masked;
  }
  return last('Softmax', [scores]);
}

/** Attention, and what belongs to it: rotary embeddings, and the caches of keys and values. */
export function registerAttention(): void {
  implement(rotaryOp, ({ x, cos, sin }, { inverse }, kernel) => {
    const { handle, out } = kernel;
    return out(rotate(kernel, handle(x), rotation(kernel, handle(cos), handle(sin), inverse)));
  });
  implement(normRotaryOp, ({ x, weight, cos, sin }, { epsilon }, kernel) => {
    const { handle, out } = kernel;
    const normalized = rms(kernel, handle(x), handle(weight), epsilon);
    return out(rotate(kernel, normalized, rotation(kernel, handle(cos), handle(sin))));
  });
  implement(normRotaryOp.backward, ({ dy, x, weight, cos, sin }, { epsilon }, kernel) => {
    const { handle, reshape, out } = kernel;
    const back = rotate(kernel, handle(dy), rotation(kernel, handle(cos), handle(sin), true));
    const rows = [-1, x.shape[3]];
    const inputs = [reshape(back, rows), reshape(handle(x), rows)] as const;
    const [dx, dweight] = rmsGrad(kernel, ...inputs, handle(weight), epsilon);
    return [out(reshape(dx, x.shape)), out(dweight)];
  });

  implement(attentionOp, (inputs, { causal, keyLength, dropout, seed }, kernel) => {
    const { handle, use, last, free, ints, tensorflow, out } = kernel;
    const headsFirst = (x: Handle) => use('Transpose', [x, ints(HEADS_FIRST)]);
    const [q, k, v] = (['q', 'k', 'v'] as const).map((name) => {
      const cache = tensorflow.cache(inputs[name]);
      if (cache) return filled(kernel, cache, keyLength);
      const x = headsFirst(handle(inputs[name]));
      return name === 'q' || x.shape[2] === keyLength ? x : filled(kernel, x, keyLength);
    });
    let p = probabilities(kernel, q, k, causal);
    if (dropout > 0) p = last('Mul', [p, dropoutFactors(kernel, p.shape, dropout, seed)]);
    const y = product(kernel, p, v);
    free(p);
    return out(headsFirst(y));
  });
  implement(attentionOp.backward, (inputs, { causal, dropout, seed }, kernel) => {
    const { handle, use, last, free, ints, number, out } = kernel;
    const headsFirst = (x: Handle) => use('Transpose', [x, ints(HEADS_FIRST)]);
    const [dy, q, k, v] = (['dy', 'q', 'k', 'v'] as const).map((name) => headsFirst(handle(inputs[name])));
    const p = probabilities(kernel, q, k, causal);
    let dropped = p;
    let dp = productByTransposed(kernel, dy, v);
    if (dropout > 0) {
      const factors = dropoutFactors(kernel, p.shape, dropout, seed);
      dropped = use('Mul', [p, factors]);
      dp = last('Mul', [dp, factors]);
    }
    const dv = productOfTransposed(kernel, dropped, dy);
    if (dropped !== p) free(dropped);
    // Through the softmax: ds = p·(dp − Σ p·dp), then the scale.
    const sums = last('Sum', [use('Mul', [p, dp]), ints([-1])], KEEP_DIMS);
    let ds = last('Mul', [p, last('Sub', [dp, sums])]);
    if (causal && q.shape[2] > 1) ds = band(kernel, ds);
    const scale = number(1 / Math.sqrt(q.shape[3]));
    const dq = use('Mul', [product(kernel, ds, k), scale]);
    const dk = use('Mul', [productOfTransposed(kernel, ds, q), scale]);
    return [dq, dk, dv].map((x) => out(headsFirst(x)));
  });

  implement(newCacheOp, (_, { shape }, { use, kept, ints, number, tensorflow }) => {
    const [batch, tokens, heads, width] = shape;
    return tensorflow.wrapCache(kept(use('Fill', [ints([batch, heads, tokens, width]), number(0)])));
  });
  implement(cacheWriteOp, (inputs, { position }, kernel) => {
    const { handle, use, ints, changingInts, number, reshape, tensorflow, out } = kernel;
    const update = handle(inputs.update);
    const count = update.shape[1];
    const own = tensorflow.cache(inputs.cache);
    const cache = own ?? handle(inputs.cache);
    const lying = own ? use('Transpose', [update, ints(HEADS_FIRST)]) : update;
    const tokens = own ? 2 : 1; // the axis of the tokens
    const capacity = cache.shape[tokens];
    const first = use('Range', [ints(0), ints(sizeOf(cache.shape.slice(0, tokens + 1))), ints(capacity)]);
    const written = use('Range', [changingInts(position), changingInts(position + count), ints(1)]);
    const rows = use('AddV2', [reshape(first, [-1, 1]), written]);
    writeRows(kernel, cache, reshape(rows, [-1]), lying, cache.shape.slice(tokens + 1));
    return out(use('Fill', [ints([0]), number(0)]));
  });
}

/** The first `length` tokens of keys or values (B, H, T, D). */
export function filled({ use, ints }: Kernel, x: Handle, length: number): Handle {
  const [batch, heads, , width] = x.shape;
  return use('Slice', [x, ints([0, 0, 0, 0]), ints([batch, heads, length, width])]);
}

/**
 * Writes `update` to some rows of a cache, both seen as lists of rows of a shape. `InplaceUpdate` writes to the memory of the
 * tensor that it is given, which `Reshape` shares with the cache.
 */
export function writeRows(
  { use, reshape }: Kernel,
  cache: Handle,
  rows: Handle,
  update: Handle,
  row: readonly number[],
): void {
  const list = (x: Handle) => reshape(x, [-1, ...row]);
  use('InplaceUpdate', [list(cache), rows, list(update)]);
}
