// General matrix product by packed panels (Goto & van de Geijn, 2008), float32, four lanes.
//
// Matrices are addressed by two strides, so that transposed and interleaved ones need no copy:
// A(i, k) at a + 4(i·ars + k·acs), B(k, j) at b + 4(k·brs + j·bcs), C(i, j) at c + 4(i·ldc + j).
// Every element of C is summed in the same order for any partition, so results do not depend on the number of threads.

/** Rows and columns of C that the inner loop keeps in registers: 12 of 16 hold C. */
const MR: i32 = 6;
const NR: i32 = 8;
/** Panel sizes: a panel of A stays in the first-level cache, one of B in the second. */
const KC: i32 = 256;
const MC: i32 = 96;
const NC: i32 = 512;

@inline export function min(a: i32, b: i32): i32 { return a < b ? a : b; }

function packA(a: usize, ars: i32, acs: i32, m: i32, k: i32, to: usize): void {
  for (let i = 0; i < m; i += MR) {
    const rows = min(MR, m - i);
    const from = a + ((i * ars) << 2);
    if (rows == MR && ars == 1) {
      for (let p = 0; p < k; p++) {
        const s = from + ((p * acs) << 2);
        v128.store(to, v128.load(s));
        store<u64>(to, load<u64>(s, 16), 16);
        to += 24;
      }
    } else if (rows == MR) {
      const r1 = from + (ars << 2), r2 = from + (ars << 3), r3 = from + ((ars * 3) << 2), r4 = from + (ars << 4), r5 = from + ((ars * 5) << 2);
      for (let p = 0; p < k; p++) {
        const o = (p * acs) << 2;
        store<f32>(to, load<f32>(from + o), 0);
        store<f32>(to, load<f32>(r1 + o), 4);
        store<f32>(to, load<f32>(r2 + o), 8);
        store<f32>(to, load<f32>(r3 + o), 12);
        store<f32>(to, load<f32>(r4 + o), 16);
        store<f32>(to, load<f32>(r5 + o), 20);
        to += 24;
      }
    } else {
      for (let p = 0; p < k; p++) {
        for (let r = 0; r < MR; r++) {
          store<f32>(to, r < rows ? load<f32>(from + ((r * ars + p * acs) << 2)) : 0);
          to += 4;
        }
      }
    }
  }
}

function packB(b: usize, brs: i32, bcs: i32, k: i32, n: i32, to: usize): void {
  for (let j = 0; j < n; j += NR) {
    const cols = min(NR, n - j);
    const from = b + ((j * bcs) << 2);
    if (cols == NR && bcs == 1) {
      for (let p = 0; p < k; p++) {
        const s = from + ((p * brs) << 2);
        v128.store(to, v128.load(s));
        v128.store(to, v128.load(s, 16), 16);
        to += 32;
      }
    } else if (cols == NR && brs == 1) {
      // 4×4 transposes
      const st = bcs << 2;
      let p = 0;
      for (; p + 4 <= k; p += 4) {
        for (let h = 0; h < 2; h++) {
          const s = from + ((h * 4) * st) + (p << 2);
          const x0 = v128.load(s), x1 = v128.load(s + st), x2 = v128.load(s + 2 * st), x3 = v128.load(s + 3 * st);
          const t0 = v128.shuffle<f32>(x0, x1, 0, 4, 1, 5), t1 = v128.shuffle<f32>(x0, x1, 2, 6, 3, 7);
          const t2 = v128.shuffle<f32>(x2, x3, 0, 4, 1, 5), t3 = v128.shuffle<f32>(x2, x3, 2, 6, 3, 7);
          const d = to + (h << 4);
          v128.store(d, v128.shuffle<f32>(t0, t2, 0, 1, 4, 5), 0);
          v128.store(d, v128.shuffle<f32>(t0, t2, 2, 3, 6, 7), 32);
          v128.store(d, v128.shuffle<f32>(t1, t3, 0, 1, 4, 5), 64);
          v128.store(d, v128.shuffle<f32>(t1, t3, 2, 3, 6, 7), 96);
        }
        to += 128;
      }
      for (; p < k; p++) {
        for (let c = 0; c < NR; c++) store<f32>(to + (c << 2), load<f32>(from + c * st + (p << 2)));
        to += 32;
      }
    } else {
      for (let p = 0; p < k; p++) {
        for (let c = 0; c < NR; c++) {
          store<f32>(to, c < cols ? load<f32>(from + ((p * brs + c * bcs) << 2)) : 0);
          to += 4;
        }
      }
    }
  }
}

function micro(k: i32, a: usize, b: usize, c: usize, ldc: i32, add: bool): void {
  let c00 = f32x4.splat(0), c01 = c00, c10 = c00, c11 = c00, c20 = c00, c21 = c00, c30 = c00, c31 = c00, c40 = c00, c41 = c00, c50 = c00, c51 = c00;
  const l = <usize>ldc << 2;
  if (add) {
    let q = c;
    c00 = v128.load(q); c01 = v128.load(q, 16); q += l;
    c10 = v128.load(q); c11 = v128.load(q, 16); q += l;
    c20 = v128.load(q); c21 = v128.load(q, 16); q += l;
    c30 = v128.load(q); c31 = v128.load(q, 16); q += l;
    c40 = v128.load(q); c41 = v128.load(q, 16); q += l;
    c50 = v128.load(q); c51 = v128.load(q, 16);
  }
  let b0: v128, b1: v128, x: v128;
  let p = k;
  // Four steps of k at a time are a quarter faster than one; the compiler does not unroll.
  for (; p >= 4; p -= 4) {
    b0 = v128.load(b, 0); b1 = v128.load(b, 16);
    x = v128.load32_splat(a, 0); c00 = f32x4.add(c00, f32x4.mul(x, b0)); c01 = f32x4.add(c01, f32x4.mul(x, b1));
    x = v128.load32_splat(a, 4); c10 = f32x4.add(c10, f32x4.mul(x, b0)); c11 = f32x4.add(c11, f32x4.mul(x, b1));
    x = v128.load32_splat(a, 8); c20 = f32x4.add(c20, f32x4.mul(x, b0)); c21 = f32x4.add(c21, f32x4.mul(x, b1));
    x = v128.load32_splat(a, 12); c30 = f32x4.add(c30, f32x4.mul(x, b0)); c31 = f32x4.add(c31, f32x4.mul(x, b1));
    x = v128.load32_splat(a, 16); c40 = f32x4.add(c40, f32x4.mul(x, b0)); c41 = f32x4.add(c41, f32x4.mul(x, b1));
    x = v128.load32_splat(a, 20); c50 = f32x4.add(c50, f32x4.mul(x, b0)); c51 = f32x4.add(c51, f32x4.mul(x, b1));
    b0 = v128.load(b, 32); b1 = v128.load(b, 48);
    x = v128.load32_splat(a, 24); c00 = f32x4.add(c00, f32x4.mul(x, b0)); c01 = f32x4.add(c01, f32x4.mul(x, b1));
    x = v128.load32_splat(a, 28); c10 = f32x4.add(c10, f32x4.mul(x, b0)); c11 = f32x4.add(c11, f32x4.mul(x, b1));
    x = v128.load32_splat(a, 32); c20 = f32x4.add(c20, f32x4.mul(x, b0)); c21 = f32x4.add(c21, f32x4.mul(x, b1));
    x = v128.load32_splat(a, 36); c30 = f32x4.add(c30, f32x4.mul(x, b0)); c31 = f32x4.add(c31, f32x4.mul(x, b1));
    x = v128.load32_splat(a, 40); c40 = f32x4.add(c40, f32x4.mul(x, b0)); c41 = f32x4.add(c41, f32x4.mul(x, b1));
    x = v128.load32_splat(a, 44); c50 = f32x4.add(c50, f32x4.mul(x, b0)); c51 = f32x4.add(c51, f32x4.mul(x, b1));
    b0 = v128.load(b, 64); b1 = v128.load(b, 80);
    x = v128.load32_splat(a, 48); c00 = f32x4.add(c00, f32x4.mul(x, b0)); c01 = f32x4.add(c01, f32x4.mul(x, b1));
    x = v128.load32_splat(a, 52); c10 = f32x4.add(c10, f32x4.mul(x, b0)); c11 = f32x4.add(c11, f32x4.mul(x, b1));
    x = v128.load32_splat(a, 56); c20 = f32x4.add(c20, f32x4.mul(x, b0)); c21 = f32x4.add(c21, f32x4.mul(x, b1));
    x = v128.load32_splat(a, 60); c30 = f32x4.add(c30, f32x4.mul(x, b0)); c31 = f32x4.add(c31, f32x4.mul(x, b1));
    x = v128.load32_splat(a, 64); c40 = f32x4.add(c40, f32x4.mul(x, b0)); c41 = f32x4.add(c41, f32x4.mul(x, b1));
    x = v128.load32_splat(a, 68); c50 = f32x4.add(c50, f32x4.mul(x, b0)); c51 = f32x4.add(c51, f32x4.mul(x, b1));
    b0 = v128.load(b, 96); b1 = v128.load(b, 112);
    x = v128.load32_splat(a, 72); c00 = f32x4.add(c00, f32x4.mul(x, b0)); c01 = f32x4.add(c01, f32x4.mul(x, b1));
    x = v128.load32_splat(a, 76); c10 = f32x4.add(c10, f32x4.mul(x, b0)); c11 = f32x4.add(c11, f32x4.mul(x, b1));
    x = v128.load32_splat(a, 80); c20 = f32x4.add(c20, f32x4.mul(x, b0)); c21 = f32x4.add(c21, f32x4.mul(x, b1));
    x = v128.load32_splat(a, 84); c30 = f32x4.add(c30, f32x4.mul(x, b0)); c31 = f32x4.add(c31, f32x4.mul(x, b1));
    x = v128.load32_splat(a, 88); c40 = f32x4.add(c40, f32x4.mul(x, b0)); c41 = f32x4.add(c41, f32x4.mul(x, b1));
    x = v128.load32_splat(a, 92); c50 = f32x4.add(c50, f32x4.mul(x, b0)); c51 = f32x4.add(c51, f32x4.mul(x, b1));
    a += 96; b += 128;
  }
  for (; p > 0; p--) {
    b0 = v128.load(b, 0); b1 = v128.load(b, 16);
    x = v128.load32_splat(a, 0); c00 = f32x4.add(c00, f32x4.mul(x, b0)); c01 = f32x4.add(c01, f32x4.mul(x, b1));
    x = v128.load32_splat(a, 4); c10 = f32x4.add(c10, f32x4.mul(x, b0)); c11 = f32x4.add(c11, f32x4.mul(x, b1));
    x = v128.load32_splat(a, 8); c20 = f32x4.add(c20, f32x4.mul(x, b0)); c21 = f32x4.add(c21, f32x4.mul(x, b1));
    x = v128.load32_splat(a, 12); c30 = f32x4.add(c30, f32x4.mul(x, b0)); c31 = f32x4.add(c31, f32x4.mul(x, b1));
    x = v128.load32_splat(a, 16); c40 = f32x4.add(c40, f32x4.mul(x, b0)); c41 = f32x4.add(c41, f32x4.mul(x, b1));
    x = v128.load32_splat(a, 20); c50 = f32x4.add(c50, f32x4.mul(x, b0)); c51 = f32x4.add(c51, f32x4.mul(x, b1));
    a += 24; b += 32;
  }
  v128.store(c, c00); v128.store(c, c01, 16); c += l;
  v128.store(c, c10); v128.store(c, c11, 16); c += l;
  v128.store(c, c20); v128.store(c, c21, 16); c += l;
  v128.store(c, c30); v128.store(c, c31, 16); c += l;
  v128.store(c, c40); v128.store(c, c41, 16); c += l;
  v128.store(c, c50); v128.store(c, c51, 16);
}

/** Bytes of scratch memory that `gemm` needs for one thread. */
export const GEMM_SCRATCH: i32 = (MC * KC + KC * NC + MR * NR) << 2;

/** C = A·B, or C += A·B with `accumulate`; A is m×k, B is k×n. */
export function gemm(m: i32, n: i32, k: i32, a: usize, ars: i32, acs: i32, b: usize, brs: i32, bcs: i32, c: usize, ldc: i32, accumulate: bool, scratch: usize): void {
  const pa = scratch, pb = pa + ((MC * KC) << 2), edge = pb + ((KC * NC) << 2);
  for (let jc = 0; jc < n; jc += NC) {
    const nc = min(NC, n - jc);
    for (let pc = 0; pc < k; pc += KC) {
      const kc = min(KC, k - pc);
      const add = accumulate || pc > 0;
      packB(b + ((pc * brs + jc * bcs) << 2), brs, bcs, kc, nc, pb);
      for (let ic = 0; ic < m; ic += MC) {
        const mc = min(MC, m - ic);
        packA(a + ((ic * ars + pc * acs) << 2), ars, acs, mc, kc, pa);
        for (let jr = 0; jr < nc; jr += NR) {
          for (let ir = 0; ir < mc; ir += MR) {
            const to = c + (((ic + ir) * ldc + jc + jr) << 2);
            const ap = pa + ((ir * kc) << 2), bp = pb + ((jr * kc) << 2);
            const rows = min(MR, mc - ir), cols = min(NR, nc - jr);
            if (rows == MR && cols == NR) micro(kc, ap, bp, to, ldc, add);
            else {
              micro(kc, ap, bp, edge, NR, false);
              for (let r = 0; r < rows; r++) for (let q = 0; q < cols; q++) {
                const d = to + ((r * ldc + q) << 2);
                const v = load<f32>(edge + ((r * NR + q) << 2));
                store<f32>(d, add ? load<f32>(d) + v : v);
              }
            }
          }
        }
      }
    }
  }
}
