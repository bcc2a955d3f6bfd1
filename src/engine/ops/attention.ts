import * as tf from '@tensorflow/tfjs';
import { defineOp, type Inputs, type Op } from './define.js';
import { dropoutMask } from './dropout.js';
import { rmsNorm, rmsNormGrad } from './normalization.js';

type RotaryAttributes = { inverse: boolean };

const runRotary: Op<RotaryAttributes> = defineOp<RotaryAttributes>({
  name: 'alitok.Rotary',
  compose: ({ x, cos, sin }, { inverse }) => {
    const [batch, tokens, heads, width] = x.shape;
    const [even, odd] = x.reshape([batch, tokens, heads, width / 2, 2]).unstack(-1);
    const c = cos.reshape([1, tokens, 1, width / 2]);
    const s = (inverse ? sin.neg() : sin).reshape([1, tokens, 1, width / 2]);
    return tf.stack([even.mul(c).sub(odd.mul(s)), odd.mul(c).add(even.mul(s))], -1).reshape(x.shape);
  },
  save: ['cos', 'sin'],
  gradient: (dy, { cos, sin }, { inverse }) => ({
    x: runRotary({ x: dy, cos, sin }, { inverse: !inverse }) as tf.Tensor,
  }),
});

/** Rotates adjacent channel pairs (2j, 2j+1) of x (B, T, H, D) by the angles of cos, sin (T, D/2). */
export function rotary(x: tf.Tensor4D, cos: tf.Tensor2D, sin: tf.Tensor2D): tf.Tensor4D {
  return runRotary({ x, cos, sin }, { inverse: false }) as tf.Tensor4D;
}

type Epsilon = { epsilon: number };

const runNormRotary: Op<Epsilon> = defineOp<Epsilon>({
  name: 'alitok.NormRotary',
  compose: ({ x, weight, cos, sin }, epsilon) =>
    rotary(rmsNorm(x, weight, epsilon) as tf.Tensor4D, cos as tf.Tensor2D, sin as tf.Tensor2D),
  save: ['x', 'weight', 'cos', 'sin'],
  gradient: (dy, saved, attributes) => {
    const [dx, dweight] = normRotaryGrad({ dy, ...saved }, attributes) as tf.Tensor[];
    return { x: dx, weight: dweight };
  },
});

const normRotaryGrad = defineOp<Epsilon>({
  name: 'alitok.NormRotaryGrad',
  compose: ({ dy, x, weight, cos, sin }, attributes) => {
    const back = runRotary({ x: dy, cos, sin }, { inverse: true }) as tf.Tensor;
    return rmsNormGrad({ dy: back, x, weight }, attributes) as tf.Tensor[];
  },
});

/**
 * Queries or keys as attention takes them: heads' vectors x (B, T, H, D), each normalised (RMSNorm with weight (D)) and turned by
 * `rotary`. Gives (B, T, H, D).
 */
export function normRotary(
  x: tf.Tensor4D,
  weight: tf.Tensor,
  cos: tf.Tensor2D,
  sin: tf.Tensor2D,
  epsilon = 1e-5,
): tf.Tensor4D {
  return runNormRotary({ x, weight, cos, sin }, { epsilon }) as tf.Tensor4D;
}

type AttentionAttributes = { causal: boolean; keyLength: number; dropout: number; seed: number };

const HEADS_FIRST = [0, 2, 1, 3]; // (B, T, H, D) ↔ (B, H, T, D)

/** x (…, Tq, Tk) with `value` where a query does not see a key, whatever stood there. */
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

const runAttention = defineOp<AttentionAttributes>({
  name: 'alitok.Attention',
  compose: ({ q, k, v }, { causal, keyLength, dropout, seed }) => {
    const used = (x: tf.Tensor) => x.slice([0, 0], [-1, keyLength]).transpose(HEADS_FIRST);
    let p = probabilities(q.transpose(HEADS_FIRST), used(k), causal);
    if (dropout > 0) p = p.mul(dropoutMask(p.shape, dropout, seed));
    return tf.matMul(p, used(v)).transpose(HEADS_FIRST);
  },
  save: ['q', 'k', 'v'],
  gradient: (dy, saved, attributes) => {
    const [dq, dk, dv] = attentionGrad({ dy, ...saved }, attributes) as tf.Tensor[];
    return { q: dq, k: dk, v: dv };
  },
});

const attentionGrad = defineOp<AttentionAttributes>({
  name: 'alitok.AttentionGrad',
  compose: (inputs: Inputs, { causal, dropout, seed }) => {
    const [dy, q, k, v] = ['dy', 'q', 'k', 'v'].map((name) => inputs[name].transpose(HEADS_FIRST));
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

/**
 * softmax(q·kᵀ/√D)·v with q (B, Tq, H, D) and k, v (B, Tk, H, D). Gives (B, Tq, H, D).
 * `causal`: the last query sees all keys, the one before it all but the last, and so on.
 * `keyLength`: only so many first rows of k and v count (they may be caches that are not full); no gradient then.
 * `dropout`, `seed`: drops attention weights as `dropout` does.
 */
export function attention(
  q: tf.Tensor4D,
  k: tf.Tensor4D,
  v: tf.Tensor4D,
  options: Partial<AttentionAttributes> = {},
): tf.Tensor4D {
  const attributes = { causal: false, keyLength: k.shape[1], dropout: 0, seed: 0, ...options };
  return runAttention({ q, k, v }, attributes) as tf.Tensor4D;
}

const NEW_CACHE = 'alitok.NewCache';
const CACHE_WRITE = 'alitok.CacheWrite';

/**
 * Keys or values (B, Tmax, H, D) of no position yet, for `cacheWrite` and `attention`; an engine keeps them in the element
 * type that its attention multiplies.
 */
export function newCache(shape: [batch: number, tokens: number, heads: number, width: number]) {
  return tf.tidy(() => {
    // `fill` makes it on the device; `zeros` would make it here and send it there.
    const empty = tf.getKernel(NEW_CACHE, tf.getBackend())
      ? (tf.engine().runKernel(NEW_CACHE, {}, { shape }) as tf.Tensor4D)
      : tf.fill(shape, 0);
    return tf.variable(empty, false) as tf.Variable<tf.Rank.R4>;
  });
}

/**
 * Writes `update` (B, n, H, D) into the rows from `position` on of `cache` (B, Tmax, H, D).
 * Engines with a kernel for it write in place; others replace the variable's value.
 */
export function cacheWrite(cache: tf.Variable<tf.Rank.R4>, update: tf.Tensor4D, position: number): void {
  tf.tidy(() => {
    if (tf.getKernel(CACHE_WRITE, tf.getBackend())) {
      tf.engine().runKernel(CACHE_WRITE, { cache, update }, { position });
      return;
    }
    const end = position + update.shape[1];
    const before = cache.slice([0, 0], [-1, position]);
    const after = cache.slice([0, end], [-1, cache.shape[1] - end]);
    cache.assign(tf.concat([before, update, after], 1));
  });
}
