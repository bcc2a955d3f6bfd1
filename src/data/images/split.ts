/** Splits pixels (N, size, size, 3) into N images (size, size, 3), which share their memory. */
export function splitImages(pixels: Uint8Array, size: number): Uint8Array[] {
  const bytes = size * size * 3;
  return Array.from({ length: pixels.length / bytes }, (_, i) => pixels.subarray(i * bytes, (i + 1) * bytes));
}
