import { exp4, hash, normalCdf4, sigmoid4 } from './math';

// Elementwise kernels over n floats. Tensors' memory is padded to 16 bytes by the backend's allocator, so the last
// group of four may be read and written whole.

/** Byte offset at which this part of n elements begins; parts consist of groups of four elements. */
@inline function begin(n: i32, part: i32, parts: i32): usize {
  return (((<i64>((n + 3) >> 2) * part) / parts) as usize) << 4;
}

export function gelu(n: i32, x: usize, y: usize, part: i32, parts: i32): void {
  const end = begin(n, part + 1, parts);
  for (let o = begin(n, part, parts); o < end; o += 16) {
    const v = v128.load(x + o);
    v128.store(y + o, f32x4.mul(v, normalCdf4(v)));
  }
}

/** dy·(Φ(x) + x·φ(x)) */
export function geluGrad(n: i32, dy: usize, x: usize, dx: usize, part: i32, parts: i32): void {
  const end = begin(n, part + 1, parts);
  for (let o = begin(n, part, parts); o < end; o += 16) {
    const v = v128.load(x + o);
    const density = f32x4.mul(exp4(f32x4.mul(f32x4.splat(-0.5), f32x4.mul(v, v))), f32x4.splat(0.3989422804014327));
    const slope = f32x4.add(normalCdf4(v), f32x4.mul(v, density));
    v128.store(dx + o, f32x4.mul(v128.load(dy + o), slope));
  }
}

export function swiglu(n: i32, gate: usize, value: usize, y: usize, part: i32, parts: i32): void {
  const end = begin(n, part + 1, parts);
  for (let o = begin(n, part, parts); o < end; o += 16) {
    const g = v128.load(gate + o);
    v128.store(y + o, f32x4.mul(f32x4.mul(g, sigmoid4(g)), v128.load(value + o)));
  }
}

export function swigluGrad(
  n: i32, dy: usize, gate: usize, value: usize, dgate: usize, dvalue: usize, part: i32, parts: i32,
): void {
  const one = f32x4.splat(1);
  const end = begin(n, part + 1, parts);
  for (let o = begin(n, part, parts); o < end; o += 16) {
    const g = v128.load(gate + o);
    const d = v128.load(dy + o);
    const s = sigmoid4(g);
    const silu = f32x4.mul(g, s);
    const slope = f32x4.add(s, f32x4.mul(silu, f32x4.sub(one, s)));
    v128.store(dgate + o, f32x4.mul(f32x4.mul(d, v128.load(value + o)), slope));
    v128.store(dvalue + o, f32x4.mul(d, silu));
  }
}

export function exponential(n: i32, x: usize, y: usize, part: i32, parts: i32): void {
  const end = begin(n, part + 1, parts);
  for (let o = begin(n, part, parts); o < end; o += 16) v128.store(y + o, exp4(v128.load(x + o)));
}

export function sigmoid(n: i32, x: usize, y: usize, part: i32, parts: i32): void {
  const end = begin(n, part + 1, parts);
  for (let o = begin(n, part, parts); o < end; o += 16) v128.store(y + o, sigmoid4(v128.load(x + o)));
}

/** max(x, 0). pmax and pmin return their first argument where it is NaN. */
export function relu(n: i32, x: usize, y: usize, part: i32, parts: i32): void {
  const end = begin(n, part + 1, parts);
  const zero = f32x4.splat(0);
  for (let o = begin(n, part, parts); o < end; o += 16) v128.store(y + o, f32x4.pmax(v128.load(x + o), zero));
}

/** x, at least `low` and at most `high`. */
export function clip(n: i32, x: usize, y: usize, low: f32, high: f32, part: i32, parts: i32): void {
  const end = begin(n, part + 1, parts);
  const low4 = f32x4.splat(low), high4 = f32x4.splat(high);
  for (let o = begin(n, part, parts); o < end; o += 16)
    v128.store(y + o, f32x4.pmin(f32x4.pmax(v128.load(x + o), low4), high4));
}

/** Elementwise maximum of a and b, where b is one number if `single` is set; NaN where either is NaN. */
export function maximum(n: i32, a: usize, b: usize, y: usize, single: i32, part: i32, parts: i32): void {
  const end = begin(n, part + 1, parts);
  const b4 = v128.load32_splat(b);
  for (let o = begin(n, part, parts); o < end; o += 16)
    v128.store(y + o, f32x4.max(v128.load(a + o), single ? b4 : v128.load(b + o)));
}

/** Elementwise minimum, likewise. */
export function minimum(n: i32, a: usize, b: usize, y: usize, single: i32, part: i32, parts: i32): void {
  const end = begin(n, part + 1, parts);
  const b4 = v128.load32_splat(b);
  for (let o = begin(n, part, parts); o < end; o += 16)
    v128.store(y + o, f32x4.min(v128.load(a + o), single ? b4 : v128.load(b + o)));
}

/** 0 where y ≤ 0, else dy: the gradient of ReLU from its result. */
export function reluGrad(n: i32, dy: usize, y: usize, dx: usize, part: i32, parts: i32): void {
  const end = begin(n, part + 1, parts);
  const zero = f32x4.splat(0);
  for (let o = begin(n, part, parts); o < end; o += 16)
    v128.store(dx + o, v128.andnot(v128.load(dy + o), f32x4.le(v128.load(y + o), zero)));
}

/** y = x·scale where hash(i, seed) ≥ threshold, else x·0, which keeps NaN. */
export function dropout(
  n: i32, x: usize, y: usize, threshold: f64, scale: f32, seed: i32, part: i32, parts: i32,
): void {
  const limit = <u32>threshold;
  const end = <i32>min<usize>(begin(n, part + 1, parts) >> 2, n);
  for (let i = <i32>(begin(n, part, parts) >> 2); i < end; i++) {
    const at = <usize>i << 2;
    store<f32>(y + at, load<f32>(x + at) * (hash(i, seed) >= limit ? scale : 0));
  }
}

/** One AdamW step; see ops/optimizer.ts. `rate` is lr/(1 − β1ᵗ), `correction` 1/√(1 − β2ᵗ), `keep` 1 − lr·decay. */
export function adamw(
  n: i32, p: usize, g: usize, m: usize, v: usize, pNext: usize, mNext: usize, vNext: usize,
  scale: f32, beta1: f32, beta2: f32, rest1: f32, rest2: f32, epsilon: f32, keep: f32, rate: f32, correction: f32,
  part: i32, parts: i32,
): void {
  const end = begin(n, part + 1, parts);
  for (let o = begin(n, part, parts); o < end; o += 16) {
    const gradient = f32x4.mul(v128.load(g + o), f32x4.splat(scale));
    const first = f32x4.add(f32x4.mul(v128.load(m + o), f32x4.splat(beta1)), f32x4.mul(gradient, f32x4.splat(rest1)));
    const square = f32x4.mul(gradient, gradient);
    const second = f32x4.add(f32x4.mul(v128.load(v + o), f32x4.splat(beta2)), f32x4.mul(square, f32x4.splat(rest2)));
    const root = f32x4.add(f32x4.mul(f32x4.sqrt(second), f32x4.splat(correction)), f32x4.splat(epsilon));
    const step = f32x4.mul(f32x4.div(first, root), f32x4.splat(rate));
    v128.store(pNext + o, f32x4.sub(f32x4.mul(v128.load(p + o), f32x4.splat(keep)), step));
    v128.store(mNext + o, first);
    v128.store(vNext + o, second);
  }
}

/** Rotates channel pairs of x (tokens of `heads`·`width`, T tokens per sequence) by cos and sin (T, width/2). */
export function rotary(
  rows: i32, tokens: i32, heads: i32, width: i32, x: usize, cos: usize, sin: usize, sign: f32, y: usize,
  part: i32, parts: i32,
): void {
  const half = width >> 1;
  for (let row = (rows * part) / parts; row < (rows * (part + 1)) / parts; row++) {
    const table = (((row % tokens) * half) << 2) as usize;
    for (let h = 0; h < heads; h++) {
      let o = (((row * heads + h) * width) << 2) as usize;
      for (let j = 0; j < half; j++) {
        const at = table + (j << 2);
        const c = load<f32>(cos + at), s = load<f32>(sin + at) * sign;
        const even = load<f32>(x + o), odd = load<f32>(x + o, 4);
        store<f32>(y + o, even * c - odd * s);
        store<f32>(y + o, odd * c + even * s, 4);
        o += 8;
      }
    }
  }
}
