// Copies between layouts, and sums over leading dimensions.

/**
 * Copies an array of up to six dimensions (outermost first) from one set of strides to another, in elements of four
 * bytes. Slices, transpositions, concatenations and padding all use it. The two outer dimensions are divided among the parts.
 */
export function copy(
  d0: i32,
  d1: i32,
  d2: i32,
  d3: i32,
  d4: i32,
  d5: i32,
  from: usize,
  f0: i32,
  f1: i32,
  f2: i32,
  f3: i32,
  f4: i32,
  f5: i32,
  to: usize,
  t0: i32,
  t1: i32,
  t2: i32,
  t3: i32,
  t4: i32,
  t5: i32,
  part: i32,
  parts: i32,
): void {
  const outer = d0 * d1;
  const run = f5 == 1 && t5 == 1;
  for (let u = <i32>((<i64>outer * part) / parts); u < <i32>((<i64>outer * (part + 1)) / parts); u++) {
    const i0 = u / d1,
      i1 = u % d1;
    const a = from + ((i0 * f0 + i1 * f1) << 2),
      b = to + ((i0 * t0 + i1 * t1) << 2);
    for (let i2 = 0; i2 < d2; i2++)
      for (let i3 = 0; i3 < d3; i3++)
        for (let i4 = 0; i4 < d4; i4++) {
          let s = a + ((i2 * f2 + i3 * f3 + i4 * f4) << 2),
            t = b + ((i2 * t2 + i3 * t3 + i4 * t4) << 2);
          if (run && d5 >= 16) {
            memory.copy(t, s, (<usize>d5) << 2);
          } else if (run) {
            for (let i5 = 0; i5 < d5; i5++) {
              store<u32>(t, load<u32>(s));
              s += 4;
              t += 4;
            }
          } else {
            const ss = <usize>(f5 << 2),
              ts = <usize>(t5 << 2);
            for (let i5 = 0; i5 < d5; i5++) {
              store<u32>(t, load<u32>(s));
              s += ss;
              t += ts;
            }
          }
        }
  }
}

/** y[j] = Σ over rows of x (rows, columns). Each part computes its own columns. */
export function sumRows(rows: i32, columns: i32, x: usize, y: usize, part: i32, parts: i32): void {
  const groups = (columns + 3) >> 2;
  const from = 4 * <i32>((<i64>groups * part) / parts);
  const to = min(columns, 4 * <i32>((<i64>groups * (part + 1)) / parts));
  for (let j = from; j < to; j++) store<f32>(y + (j << 2), 0);
  for (let r = 0; r < rows; r++) {
    const row = x + ((r * columns) << 2);
    let j = from;
    for (; j + 4 <= to; j += 4) {
      const o = <usize>(j << 2);
      v128.store(y + o, f32x4.add(v128.load(y + o), v128.load(row + o)));
    }
    for (; j < to; j++) {
      const o = <usize>(j << 2);
      store<f32>(y + o, load<f32>(y + o) + load<f32>(row + o));
    }
  }
}
