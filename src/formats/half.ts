/** BF16 as raw 16-bit patterns to float32: the upper half of the same number. */
export function bfloat16ToFloat32(bits: Uint16Array): Float32Array {
  const wide = new Uint32Array(bits.length);
  for (let i = 0; i < bits.length; i++) wide[i] = bits[i] << 16;
  return new Float32Array(wide.buffer);
}

/** IEEE 754 half precision as raw 16-bit patterns to float32, exactly. */
export function float16ToFloat32(bits: Uint16Array): Float32Array {
  const out = new Float32Array(bits.length);
  const wide = new Uint32Array(out.buffer);
  for (let i = 0; i < bits.length; i++) {
    const sign = (bits[i] & 0x8000) << 16;
    const exponent = (bits[i] >>> 10) & 0x1f;
    const fraction = bits[i] & 0x3ff;
    if (exponent === 0) {
      out[i] = (sign ? -fraction : fraction) * 2 ** -24; // zero or subnormal
      if (fraction === 0) wide[i] = sign;
    } else if (exponent === 0x1f) {
      wide[i] = sign | 0x7f800000 | (fraction << 13); // infinity or NaN
    } else {
      wide[i] = sign | ((exponent + 112) << 23) | (fraction << 13);
    }
  }
  return out;
}
