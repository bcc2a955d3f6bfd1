import { exp4 } from './math';

// Lookup of rows by index, losses over rows, and nearest codes.

@inline function first(rows: i32, part: i32, parts: i32): i32 {
  return <i32>((<i64>rows * part) / parts);
}

/** y[i] = weight[indices[i]], rows of d floats */
export function embedding(rows: i32, d: i32, weight: usize, indices: usize, y: usize, part: i32, parts: i32): void {
  const bytes = <usize>d << 2;
  for (let i = first(rows, part, parts); i < first(rows, part + 1, parts); i++)
    memory.copy(y + <usize>i * bytes, weight + <usize>load<i32>(indices + (i << 2)) * bytes, bytes);
}

/**
 * dweight[indices[i]] += dy[i]; dweight is set to zero first. Each part computes its own columns, so that no two parts write to
 * the same element.
 */
export function embeddingGrad(
  rows: i32, d: i32, entries: i32, dy: usize, indices: usize, dweight: usize, part: i32, parts: i32,
): void {
  const from = first(d, part, parts), to = first(d, part + 1, parts);
  for (let e = 0; e < entries; e++) memory.fill(dweight + ((e * d + from) << 2), 0, (to - from) << 2);
  for (let i = 0; i < rows; i++) {
    const index = load<i32>(indices + (i << 2));
    if (index < 0 || index >= entries) continue;
    const source = dy + ((i * d) << 2), target = dweight + ((index * d) << 2);
    let j = from;
    for (; j + 4 <= to; j += 4) {
      const o = <usize>(j << 2);
      v128.store(target + o, f32x4.add(v128.load(target + o), v128.load(source + o)));
    }
    for (; j < to; j++) {
      const o = <usize>(j << 2);
      store<f32>(target + o, load<f32>(target + o) + load<f32>(source + o));
    }
  }
}

function rowMax(row: usize, n: i32): f32 {
  let m: f32 = -Infinity;
  for (let i = 0; i < n; i++) m = max(m, load<f32>(row + (i << 2)));
  return m;
}

/** Σ exp(x − m) */
function rowExpSum(row: usize, n: i32, m: f32): f32 {
  const m4 = f32x4.splat(m);
  let s = f32x4.splat(0);
  let i = 0;
  for (; i + 4 <= n; i += 4) s = f32x4.add(s, exp4(f32x4.sub(v128.load(row + (i << 2)), m4)));
  let sum = f32x4.extract_lane(s, 0) + f32x4.extract_lane(s, 1) + (f32x4.extract_lane(s, 2) + f32x4.extract_lane(s, 3));
  for (; i < n; i++) sum += f32x4.extract_lane(exp4(f32x4.splat(load<f32>(row + (i << 2)) - m)), 0);
  return sum;
}

export function crossEntropy(
  rows: i32, n: i32, logits: usize, targets: usize, y: usize, part: i32, parts: i32,
): void {
  for (let r = first(rows, part, parts); r < first(rows, part + 1, parts); r++) {
    const row = logits + ((r * n) << 2);
    const m = rowMax(row, n);
    const chosen = load<f32>(row + (load<i32>(targets + (r << 2)) << 2));
    store<f32>(y + (r << 2), <f32>Math.log(<f64>rowExpSum(row, n, m)) - (chosen - m));
  }
}

/** (softmax − one-hot)·dy by row */
export function crossEntropyGrad(
  rows: i32, n: i32, dy: usize, logits: usize, targets: usize, dlogits: usize, part: i32, parts: i32,
): void {
  for (let r = first(rows, part, parts); r < first(rows, part + 1, parts); r++) {
    const row = logits + ((r * n) << 2), to = dlogits + ((r * n) << 2);
    const m = rowMax(row, n);
    const g = load<f32>(dy + (r << 2));
    const scale = g / rowExpSum(row, n, m);
    const m4 = f32x4.splat(m), s4 = f32x4.splat(scale);
    let i = 0;
    for (; i + 4 <= n; i += 4)
      v128.store(to + (i << 2), f32x4.mul(exp4(f32x4.sub(v128.load(row + (i << 2)), m4)), s4));
    for (; i < n; i++)
      store<f32>(to + (i << 2), f32x4.extract_lane(exp4(f32x4.splat(load<f32>(row + (i << 2)) - m)), 0) * scale);
    const target = to + (load<i32>(targets + (r << 2)) << 2);
    store<f32>(target, load<f32>(target) - g);
  }
}

/** Softmax over rows of n. */
export function softmax(rows: i32, n: i32, x: usize, y: usize, part: i32, parts: i32): void {
  for (let r = first(rows, part, parts); r < first(rows, part + 1, parts); r++) {
    const row = x + ((r * n) << 2), to = y + ((r * n) << 2);
    const m = rowMax(row, n);
    const s: f32 = 1 / rowExpSum(row, n, m);
    const m4 = f32x4.splat(m), s4 = f32x4.splat(s);
    let i = 0;
    for (; i + 4 <= n; i += 4) v128.store(to + (i << 2), f32x4.mul(exp4(f32x4.sub(v128.load(row + (i << 2)), m4)), s4));
    for (; i < n; i++)
      store<f32>(to + (i << 2), f32x4.extract_lane(exp4(f32x4.splat(load<f32>(row + (i << 2)) - m)), 0) * s);
  }
}

/**
 * Index of the smallest |e|² − 2·product in each row of products (rows, entries). The first wins a tie, and NaN counts as
 * less than all numbers.
 */
export function nearest(
  rows: i32, entries: i32, products: usize, norms: usize, indices: usize, part: i32, parts: i32,
): void {
  for (let r = first(rows, part, parts); r < first(rows, part + 1, parts); r++) {
    let best = 0;
    let least: f32 = Infinity;
    for (let e = 0; e < entries && least == least; e++) {
      const distance: f32 = load<f32>(norms + (e << 2)) - 2 * load<f32>(products + ((r * entries + e) << 2));
      if (!(distance >= least)) {
        least = distance;
        best = e;
      }
    }
    store<i32>(indices + (r << 2), best);
  }
}

/** Index of the largest of each row of n, or of the smallest if `sign` is −1. The first wins a tie; NaN wins over all. */
export function argMax(rows: i32, n: i32, x: usize, indices: usize, sign: f32, part: i32, parts: i32): void {
  for (let r = first(rows, part, parts); r < first(rows, part + 1, parts); r++) {
    const row = x + ((r * n) << 2);
    let best = 0;
    let most: f32 = sign * load<f32>(row);
    for (let i = 1; i < n && most == most; i++) {
      const value: f32 = sign * load<f32>(row + (i << 2));
      if (!(value <= most)) {
        most = value;
        best = i;
      }
    }
    store<i32>(indices + (r << 2), best);
  }
}

/** Squared norms of rows of d floats. */
export function squaredNorms(rows: i32, d: i32, x: usize, y: usize, part: i32, parts: i32): void {
  for (let r = first(rows, part, parts); r < first(rows, part + 1, parts); r++) {
    let sum: f32 = 0;
    for (let i = 0; i < d; i++) {
      const v = load<f32>(x + ((r * d + i) << 2));
      sum += v * v;
    }
    store<f32>(y + (r << 2), sum);
  }
}
