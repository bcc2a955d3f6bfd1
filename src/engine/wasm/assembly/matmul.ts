import { GEMM_SCRATCH, gemm, min } from './gemm';

/** Below this many rows, a product with a row-major weight is computed by dot products, which read the weight once. */
const DOT_ROWS: i32 = 5;

@inline function sum4(v: v128): f32 {
  return f32x4.extract_lane(v, 0) + f32x4.extract_lane(v, 1) + (f32x4.extract_lane(v, 2) + f32x4.extract_lane(v, 3));
}

/** Σ x[i]·y[i] for i < n */
export function dot(x: usize, y: usize, n: i32): f32 {
  let s0 = f32x4.splat(0), s1 = s0, s2 = s0, s3 = s0;
  let i = 0;
  for (; i + 16 <= n; i += 16) {
    s0 = f32x4.add(s0, f32x4.mul(v128.load(x), v128.load(y)));
    s1 = f32x4.add(s1, f32x4.mul(v128.load(x, 16), v128.load(y, 16)));
    s2 = f32x4.add(s2, f32x4.mul(v128.load(x, 32), v128.load(y, 32)));
    s3 = f32x4.add(s3, f32x4.mul(v128.load(x, 48), v128.load(y, 48)));
    x += 64;
    y += 64;
  }
  for (; i + 4 <= n; i += 4) {
    s0 = f32x4.add(s0, f32x4.mul(v128.load(x), v128.load(y)));
    x += 16;
    y += 16;
  }
  let sum = sum4(f32x4.add(f32x4.add(s0, s1), f32x4.add(s2, s3)));
  for (; i < n; i++) {
    sum += load<f32>(x) * load<f32>(y);
    x += 4;
    y += 4;
  }
  return sum;
}

function addBias(c: usize, ldc: i32, m: i32, n: i32, bias: usize): void {
  for (let i = 0; i < m; i++) {
    let to = c + ((i * ldc) << 2);
    let from = bias;
    let j = 0;
    for (; j + 4 <= n; j += 4) {
      v128.store(to, f32x4.add(v128.load(to), v128.load(from)));
      to += 16;
      from += 16;
    }
    for (; j < n; j++) {
      store<f32>(to, load<f32>(to) + load<f32>(from));
      to += 4;
      from += 4;
    }
  }
}

/**
 * `batches` products C_i = A_i·B_i (+ bias by column where `bias` is not 0; += where `accumulate` is not 0).
 * Batch i of A, B and C starts at element i·abs, i·bbs and i·cbs. Batches, or else rows, or else columns are divided among
 * the parts.
 */
export function matmul(
  batches: i32, m: i32, n: i32, k: i32,
  a: usize, ars: i32, acs: i32, abs: i32,
  b: usize, brs: i32, bcs: i32, bbs: i32,
  c: usize, ldc: i32, cbs: i32,
  bias: usize, accumulate: i32, scratch: usize, part: i32, parts: i32,
): void {
  scratch += part * GEMM_SCRATCH;
  let first = 0, last = batches, i0 = 0, i1 = m, j0 = 0, j1 = n;
  if (batches >= parts) {
    first = (batches * part) / parts;
    last = (batches * (part + 1)) / parts;
  } else if (m >= n && m >= 6 * parts) {
    const units = (m + 5) / 6;
    i0 = min(m, 6 * ((units * part) / parts));
    i1 = min(m, 6 * ((units * (part + 1)) / parts));
  } else {
    const units = (n + 7) / 8;
    j0 = min(n, 8 * ((units * part) / parts));
    j1 = min(n, 8 * ((units * (part + 1)) / parts));
  }
  if (i1 <= i0 || j1 <= j0) return;
  const dots = m < DOT_ROWS && brs == 1 && acs == 1 && accumulate == 0;
  for (let batch = first; batch < last; batch++) {
    const from = a + ((batch * abs + i0 * ars) << 2);
    const by = b + ((batch * bbs + j0 * bcs) << 2);
    const to = c + ((batch * cbs + i0 * ldc + j0) << 2);
    if (dots) {
      for (let j = 0; j < j1 - j0; j++)
        for (let i = 0; i < i1 - i0; i++)
          store<f32>(to + ((i * ldc + j) << 2), dot(from + ((i * ars) << 2), by + ((j * bcs) << 2), k));
    } else {
      gemm(i1 - i0, j1 - j0, k, from, ars, acs, by, brs, bcs, to, ldc, accumulate != 0, scratch);
    }
    if (bias != 0) addBias(to, ldc, i1 - i0, j1 - j0, bias + (j0 << 2));
  }
}

/** Bytes of scratch memory for each part of `matmul`. */
export function matmulScratch(): i32 {
  return GEMM_SCRATCH;
}
