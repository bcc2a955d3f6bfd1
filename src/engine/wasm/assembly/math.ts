// Elementary functions on four lanes, to about float32 rounding.

/**
 * eˣ: 2ⁿ·eʳ with |r| ≤ ½ ln 2 and a polynomial for eʳ (Cephes' expf). Infinity above ln of the largest float, NaN for NaN,
 * and 0 below −87.68, where the result would be subnormal.
 */
export function exp4(x: v128): v128 {
  // pmin and pmax return their first argument where it is NaN.
  const y = f32x4.pmax(f32x4.pmin(x, f32x4.splat(89)), f32x4.splat(-88));
  // 2¹²⁷ is the largest power: the largest results use a larger r, and results that are too large overflow in the product.
  // 2⁻¹²⁷ has the bits of 0.
  const n = f32x4.pmin(f32x4.nearest(f32x4.mul(y, f32x4.splat(1.44269504088896341))), f32x4.splat(127));
  let r = f32x4.sub(y, f32x4.mul(n, f32x4.splat(0.693359375)));
  r = f32x4.sub(r, f32x4.mul(n, f32x4.splat(-2.1219444e-4)));
  let p = f32x4.splat(1.98756915e-4);
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(1.3981999507e-3));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(8.3334519073e-3));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(4.1665795894e-2));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(1.6666665459e-1));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(5.0000001201e-1));
  p = f32x4.add(f32x4.add(f32x4.mul(p, f32x4.mul(r, r)), r), f32x4.splat(1));
  const scale = i32x4.shl(i32x4.add(i32x4.trunc_sat_f32x4_s(n), i32x4.splat(127)), 23);
  return f32x4.mul(p, scale);
}

/** 1/(1 + e⁻ˣ) */
export function sigmoid4(x: v128): v128 {
  return f32x4.div(f32x4.splat(1), f32x4.add(f32x4.splat(1), exp4(f32x4.neg(x))));
}

/** Φ(x), the cumulative normal distribution; its tail by Abramowitz & Stegun 7.1.26, without cancellation. */
export function normalCdf4(x: v128): v128 {
  const z = f32x4.mul(f32x4.abs(x), f32x4.splat(0.70710678118654752));
  const t = f32x4.div(f32x4.splat(1), f32x4.add(f32x4.splat(1), f32x4.mul(f32x4.splat(0.3275911), z)));
  let p = f32x4.splat(1.061405429);
  p = f32x4.add(f32x4.mul(p, t), f32x4.splat(-1.453152027));
  p = f32x4.add(f32x4.mul(p, t), f32x4.splat(1.421413741));
  p = f32x4.add(f32x4.mul(p, t), f32x4.splat(-0.284496736));
  p = f32x4.add(f32x4.mul(p, t), f32x4.splat(0.254829592));
  const tail = f32x4.mul(f32x4.mul(f32x4.splat(0.5), f32x4.mul(p, t)), exp4(f32x4.neg(f32x4.mul(z, z))));
  return v128.bitselect(tail, f32x4.sub(f32x4.splat(1), tail), f32x4.lt(x, f32x4.splat(0)));
}

/** The 32-bit hash of (index, seed) that decides dropout; see ops/dropout.ts. */
export function hash(index: u32, seed: u32): u32 {
  let h = index + seed * 0x9e3779b1;
  h = (h ^ (h >>> 16)) * 0x85ebca6b;
  h = (h ^ (h >>> 13)) * 0xc2b2ae35;
  return h ^ (h >>> 16);
}
