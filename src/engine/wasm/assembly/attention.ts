import { GEMM_SCRATCH, gemm } from './gemm';
import { exp4, hash } from './math';
import { dot } from './matmul';

// softmax(q·kᵀ/√D)·v for q (B, Tq, H, D) and k, v (B, Tk, H, D), one batch and head at a time: the (Tq, length)
// probabilities of one head stay in a thread's scratch memory.

/** Bytes of scratch memory for each part, for Tq queries and `length` keys. */
export function attentionScratch(queries: i32, length: i32): i32 {
  return GEMM_SCRATCH + ((2 * queries * length + 4) << 2);
}

/**
 * Replaces scores by the softmax of each scaled row, in place. Causal rows end at their own key; the rest of a row becomes
 * zero, or NaN if the row is NaN.
 */
function softmaxRows(p: usize, queries: i32, length: i32, scale: f32, causal: i32): void {
  const s4 = f32x4.splat(scale);
  for (let i = 0; i < queries; i++) {
    const row = p + ((i * length) << 2);
    const visible = causal ? i + length - queries + 1 : length;
    const whole = <usize>((visible >> 2) << 4),
      end = <usize>(visible << 2);
    let m4 = f32x4.splat(-Infinity);
    let o: usize = 0;
    for (; o < whole; o += 16) m4 = f32x4.max(m4, v128.load(row + o));
    let m = max(
      max(f32x4.extract_lane(m4, 0), f32x4.extract_lane(m4, 1)),
      max(f32x4.extract_lane(m4, 2), f32x4.extract_lane(m4, 3)),
    );
    for (; o < end; o += 4) m = max(m, load<f32>(row + o));
    const sm = f32x4.splat(m);
    let t4 = f32x4.splat(0);
    for (o = 0; o < whole; o += 16) {
      const e = exp4(f32x4.mul(f32x4.sub(v128.load(row + o), sm), s4));
      v128.store(row + o, e);
      t4 = f32x4.add(t4, e);
    }
    let total =
      f32x4.extract_lane(t4, 0) +
      f32x4.extract_lane(t4, 1) +
      (f32x4.extract_lane(t4, 2) + f32x4.extract_lane(t4, 3));
    for (; o < end; o += 4) {
      const e = f32x4.extract_lane(exp4(f32x4.splat((load<f32>(row + o) - m) * scale)), 0);
      store<f32>(row + o, e);
      total += e;
    }
    const r: f32 = 1 / total;
    const r4 = f32x4.splat(r);
    for (o = 0; o < whole; o += 16) v128.store(row + o, f32x4.mul(v128.load(row + o), r4));
    for (; o < end; o += 4) store<f32>(row + o, load<f32>(row + o) * r);
    for (o = end; o < (<usize>length) << 2; o += 4) store<f32>(row + o, 0 * r);
  }
}

/** One query: dot products over the cached keys, no packing. */
function attendOne(
  q: usize,
  k: usize,
  v: usize,
  o: usize,
  row: i32,
  length: i32,
  d: i32,
  scale: f32,
  p: usize,
): void {
  const stride = (<usize>row) << 2;
  for (let j = 0; j < length; j++) store<f32>(p + (j << 2), dot(q, k + <usize>j * stride, d));
  softmaxRows(p, 1, length, scale, 0);
  const whole = <usize>((d >> 2) << 4),
    end = (<usize>d) << 2;
  for (let c: usize = 0; c < whole; c += 16) {
    let s = f32x4.splat(0);
    for (let j = 0; j < length; j++)
      s = f32x4.add(s, f32x4.mul(v128.load32_splat(p + (j << 2)), v128.load(v + <usize>j * stride + c)));
    v128.store(o + c, s);
  }
  for (let c = whole; c < end; c += 4) {
    let s: f32 = 0;
    for (let j = 0; j < length; j++) s += load<f32>(p + (j << 2)) * load<f32>(v + <usize>j * stride + c);
    store<f32>(o + c, s);
  }
}

/** y = x·mask/(1 − rate), which keeps NaN, over the probabilities of one head, whose first element has flat index `at`. */
function dropRows(x: usize, y: usize, n: i32, at: i32, limit: u32, scale: f32, seed: i32): void {
  for (let i = 0; i < n; i++)
    store<f32>(y + (i << 2), load<f32>(x + (i << 2)) * (hash(at + i, seed) >= limit ? scale : 0));
}

/** `cache`: number of rows in k and v per batch, of which the first `length` are used. */
export function attention(
  batch: i32,
  heads: i32,
  queries: i32,
  length: i32,
  cache: i32,
  d: i32,
  q: usize,
  k: usize,
  v: usize,
  o: usize,
  scale: f32,
  causal: i32,
  threshold: f64,
  keep: f32,
  seed: i32,
  scratch: usize,
  scratchBytes: i32,
  part: i32,
  parts: i32,
): void {
  const work = scratch + part * scratchBytes;
  const p = work + GEMM_SCRATCH;
  const row = heads * d;
  const limit = <u32>threshold;
  for (let unit = (batch * heads * part) / parts; unit < (batch * heads * (part + 1)) / parts; unit++) {
    const b = unit / heads,
      h = unit % heads;
    const qo = <usize>(((b * queries * heads + h) * d) << 2);
    const ko = <usize>(((b * cache * heads + h) * d) << 2);
    if (queries == 1 && limit == 0) {
      attendOne(q + qo, k + ko, v + ko, o + qo, row, length, d, scale, p);
      continue;
    }
    gemm(queries, length, d, q + qo, row, 1, k + ko, 1, row, p, length, false, work);
    softmaxRows(p, queries, length, scale, causal);
    const n = queries * length;
    if (limit != 0) dropRows(p, p, n, unit * n, limit, keep, seed);
    gemm(queries, d, length, p, length, 1, v + ko, row, 1, o + qo, row, false, work);
  }
}

export function attentionGrad(
  batch: i32,
  heads: i32,
  queries: i32,
  length: i32,
  d: i32,
  dy: usize,
  q: usize,
  k: usize,
  v: usize,
  dq: usize,
  dk: usize,
  dv: usize,
  scale: f32,
  causal: i32,
  threshold: f64,
  keep: f32,
  seed: i32,
  scratch: usize,
  scratchBytes: i32,
  part: i32,
  parts: i32,
): void {
  const work = scratch + part * scratchBytes;
  const n = queries * length;
  const p = work + GEMM_SCRATCH;
  const dp = p + ((n + (n & 1)) << 2);
  const row = heads * d;
  const limit = <u32>threshold;
  for (let unit = (batch * heads * part) / parts; unit < (batch * heads * (part + 1)) / parts; unit++) {
    const b = unit / heads,
      h = unit % heads;
    const qo = <usize>(((b * queries * heads + h) * d) << 2);
    const ko = <usize>(((b * length * heads + h) * d) << 2);
    gemm(queries, length, d, q + qo, row, 1, k + ko, 1, row, p, length, false, work);
    softmaxRows(p, queries, length, scale, causal);
    // dv = dropped(p)ᵀ·dy, with dropped(p) stored in the memory of dp
    let weights = p;
    if (limit != 0) {
      dropRows(p, dp, n, unit * n, limit, keep, seed);
      weights = dp;
    }
    gemm(length, d, queries, weights, 1, length, dy + qo, row, 1, dv + ko, row, false, work);
    gemm(queries, length, d, dy + qo, row, 1, v + ko, 1, row, dp, length, false, work);
    if (limit != 0) dropRows(dp, dp, n, unit * n, limit, keep, seed);
    // ds = p·(dp − Σ p·dp)·scale, stored in the memory of dp; zero at masked keys, whatever dp is there
    for (let i = 0; i < queries; i++) {
      const pr = p + ((i * length) << 2),
        dr = dp + ((i * length) << 2);
      const sum = f32x4.splat(dot(pr, dr, length));
      const s4 = f32x4.splat(scale);
      const visible = causal ? i + length - queries + 1 : length;
      let c: usize = 0;
      const whole = <usize>((visible >> 2) << 4),
        end = (<usize>visible) << 2;
      for (; c < whole; c += 16)
        v128.store(dr + c, f32x4.mul(f32x4.mul(v128.load(pr + c), f32x4.sub(v128.load(dr + c), sum)), s4));
      for (; c < end; c += 4)
        store<f32>(dr + c, load<f32>(pr + c) * (load<f32>(dr + c) - f32x4.extract_lane(sum, 0)) * scale);
      if (visible < length) memory.fill(dr + end, 0, ((<usize>length) << 2) - end);
    }
    gemm(queries, d, length, dp, length, 1, k + ko, row, 1, dq + qo, row, false, work);
    gemm(length, d, queries, dp, 1, length, q + qo, row, 1, dk + ko, row, false, work);
  }
}
