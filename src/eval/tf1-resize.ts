/** For each output position the two source positions and the second one's weight; the origin is the corner. */
function taps(from: number, to: number): { lower: number; upper: number; weight: number }[] {
  const scale = from / to;
  return Array.from({ length: to }, (_, i) => {
    const position = i * scale;
    const lower = Math.floor(position);
    return { lower, upper: Math.min(lower + 1, from - 1), weight: position - lower };
  });
}

/**
 * Bilinear resize of one image (height, width, 3) to (outHeight, outWidth, 3) as TensorFlow 1 does it: corners are the
 * origin, pixels have no half shift. It is part of the definition of FID.
 */
export function tf1Resize(
  image: ArrayLike<number>,
  height: number,
  width: number,
  outHeight: number,
  outWidth: number,
): Float32Array {
  const [rows, columns] = [taps(height, outHeight), taps(width, outWidth)];
  const out = new Float32Array(outHeight * outWidth * 3);
  let to = 0;
  for (const row of rows)
    for (const column of columns)
      for (let c = 0; c < 3; c++) {
        const at = (y: number, x: number) => image[(y * width + x) * 3 + c];
        const top =
          at(row.lower, column.lower) * (1 - column.weight) + at(row.lower, column.upper) * column.weight;
        const bottom =
          at(row.upper, column.lower) * (1 - column.weight) + at(row.upper, column.upper) * column.weight;
        out[to++] = top * (1 - row.weight) + bottom * row.weight;
      }
  return out;
}
