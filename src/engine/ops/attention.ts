import * as tf from '@tensorflow/tfjs';
import { defineOp, type Operation } from './define.js';
import { dropoutMask } from './dropout.js';
import { rmsNorm, rmsNormOp } from './normalization.js';

type RotaryAttributes = { inverse: boolean };

export const rotaryOp: Operation<'x' | 'cos' | 'sin', RotaryAttributes, tf.Tensor> = defineOp({
  name: 'alitok.Rotary',
  inputs: ['x', 'cos', 'sin'],
  compose: ({ x, cos, sin }, { inverse }: RotaryAttributes) => {
    const [batch, tokens, heads, width] = x.shape;
    const [even, odd] = x.reshape([batch, tokens, heads, width / 2, 2]).unstack(-1);
    const c = cos.reshape([1, tokens, 1, width / 2]);
    const s = (inverse ? sin.neg() : sin).reshape([1, tokens, 1, width / 2]);
    return tf.stack([even.mul(c).sub(odd.mul(s)), odd.mul(c).add(even.mul(s))], -1).reshape(x.shape);
  },
  save: ['cos', 'sin'],
  gradient: (dy, { cos, sin }, { inverse }) => ({
    x: rotaryOp({ x: dy, cos, sin }, { inverse: !inverse }),
  }),
});

/** Rotates adjacent channel pairs (2j, 2j+1) of x (B, T, H, D) by the angles of cos, sin (T, D/2). */
export function rotary(x: tf.Tensor4D, cos: tf.Tensor2D, sin: tf.Tensor2D): tf.Tensor4D {
  return rotaryOp({ x, cos, sin }, { inverse: false }) as tf.Tensor4D;
}

type Epsilon = { epsilon: number };

const normRotaryGrad = defineOp({
  name: 'alitok.NormRotaryGrad',
  inputs: ['dy', 'x', 'weight', 'cos', 'sin'],
  compose: ({ dy, x, weight, cos, sin }, attributes: Epsilon) => {
    const back = rotaryOp({ x: dy, cos, sin }, { inverse: true });
    return rmsNormOp.backward({ dy: back, x, weight }, attributes);
  },
});

export const normRotaryOp = defineOp({
  name: 'alitok.NormRotary',
  inputs: ['x', 'weight', 'cos', 'sin'],
  compose: ({ x, weight, cos, sin }, epsilon: Epsilon): tf.Tensor =>
    rotary(rmsNorm(x, weight, epsilon) as tf.Tensor4D, cos as tf.Tensor2D, sin as tf.Tensor2D),
  save: ['x', 'weight', 'cos', 'sin'],
  backward: normRotaryGrad,
  gradient: ['x', 'weight'],
});

/**
 * Prepares queries or keys x (B, T, H, D) for attention: RMSNorm of each head's vector with weight (D), then `rotary`.
 * Returns (B, T, H, D).
 */
export function normRotary(
  x: tf.Tensor4D,
  weight: tf.Tensor,
  cos: tf.Tensor2D,
  sin: tf.Tensor2D,
  epsilon = 1e-5,
): tf.Tensor4D {
  return normRotaryOp({ x, weight, cos, sin }, { epsilon }) as tf.Tensor4D;
}

export type AttentionAttributes = { causal: boolean; keyLength: number; dropout: number; seed: number };

const HEADS_FIRST = [0, 2, 1, 3]; // (B, T, H, D) ↔ (B, H, T, D)

/** x (…, Tq, Tk) with `value` at every key that the query must not see, whatever was there before. */
function hide(x: tf.Tensor, causal: boolean, value: number): tf.Tensor {
  const [queries, keys] = x.shape.slice(-2);
  if (!causal || queries === 1) return x;
  const visible = tf.linalg.bandPart(tf.ones([queries, keys]), -1, keys - queries).toBool();
  return tf.where(visible, x, value);
}

/** softmax(q·kᵀ/√D) (B, H, Tq, Tk) for q, k (B, H, T, D). */
function probabilities(q: tf.Tensor, k: tf.Tensor, causal: boolean): tf.Tensor {
  const scores = tf.matMul(q, k, false, true).mul(1 / Math.sqrt(q.shape[3]!));
  return hide(scores, causal, Number.NEGATIVE_INFINITY).softmax();
}

const attentionGrad = defineOp({
  name: 'alitok.AttentionGrad',
  inputs: ['dy', 'q', 'k', 'v'],
  compose: (inputs, { causal, dropout, seed }: AttentionAttributes) => {
    const [dy, q, k, v] = (['dy', 'q', 'k', 'v'] as const).map((name) => inputs[name].transpose(HEADS_FIRST));
    const p = probabilities(q, k, causal);
    let dropped = p;
    let dp = tf.matMul(dy, v, false, true);
    if (dropout > 0) {
      const mask = dropoutMask(p.shape, dropout, seed);
      dropped = p.mul(mask);
      dp = dp.mul(mask);
    }
    const dv = tf.matMul(dropped, dy, true, false);
    // Through the softmax: ds = p·(dp − Σ p·dp), then the scale.
    const all = p.mul(dp.sub(p.mul(dp).sum(-1, true))).mul(1 / Math.sqrt(q.shape[3]!));
    const ds = hide(all, causal, 0);
    const dq = tf.matMul(ds, k);
    const dk = tf.matMul(ds, q, true, false);
    return [dq, dk, dv].map((x) => x.transpose(HEADS_FIRST));
  },
});

export const attentionOp = defineOp({
  name: 'alitok.Attention',
  inputs: ['q', 'k', 'v'],
  compose: ({ q, k, v }, { causal, keyLength, dropout, seed }: AttentionAttributes) => {
    const used = (x: tf.Tensor) => x.slice([0, 0], [-1, keyLength]).transpose(HEADS_FIRST);
    let p = probabilities(q.transpose(HEADS_FIRST), used(k), causal);
    if (dropout > 0) p = p.mul(dropoutMask(p.shape, dropout, seed));
    return tf.matMul(p, used(v)).transpose(HEADS_FIRST);
  },
  save: ['q', 'k', 'v'],
  backward: attentionGrad,
  gradient: ['q', 'k', 'v'],
});

/**
 * softmax(q·kᵀ/√D)·v with q (B, Tq, H, D) and k, v (B, Tk, H, D). Returns (B, Tq, H, D).
 * `causal`: the last query sees all keys, the one before it all but the last, and so on.
 * `keyLength`: uses only this many first rows of k and v, which may be partly filled caches; then there is no gradient.
 * `dropout`, `seed`: drops attention weights as `dropout` does.
 */
export function attention(
  q: tf.Tensor4D,
  k: tf.Tensor4D,
  v: tf.Tensor4D,
  options: Partial<AttentionAttributes> = {},
): tf.Tensor4D {
  const attributes = { causal: false, keyLength: k.shape[1], dropout: 0, seed: 0, ...options };
  return attentionOp({ q, k, v }, attributes) as tf.Tensor4D;
}

export const newCacheOp = defineOp({
  name: 'alitok.NewCache',
  inputs: [],
  // `fill` creates it on the device; `zeros` would create it on the host and send it there.
  compose: (_, { shape }: { shape: number[] }): tf.Tensor => tf.fill(shape, 0),
});

/**
 * An empty cache of keys or values (B, Tmax, H, D) for `cacheWrite` and `attention`. The engine keeps it in the element type
 * and the layout that its attention multiplies, so nothing else can read it. The caller disposes of it.
 */
export function newCache(shape: [batch: number, tokens: number, heads: number, width: number]) {
  return tf.tidy(() => tf.variable(newCacheOp({}, { shape }), false) as tf.Variable<tf.Rank.R4>);
}

export const cacheWriteOp = defineOp({
  name: 'alitok.CacheWrite',
  inputs: ['cache', 'update'],
  compose: ({ cache, update }, { position }: { position: number }): tf.Tensor => {
    const end = position + update.shape[1]!;
    const before = cache.slice([0, 0], [-1, position]);
    const after = cache.slice([0, end], [-1, cache.shape[1]! - end]);
    (cache as tf.Variable).assign(tf.concat([before, update, after], 1));
    return tf.fill([0], 0);
  },
});

/**
 * Writes `update` (B, n, H, D) into the rows of `cache` (B, Tmax, H, D) that begin at `position`.
 * Engines with a kernel write in place; the composition replaces the variable's value.
 */
export function cacheWrite(cache: tf.Variable<tf.Rank.R4>, update: tf.Tensor4D, position: number): void {
  tf.tidy(() => void cacheWriteOp({ cache, update }, { position }));
}
