export interface BmpParts {
  width: number;
  /** Negative where rows go from top to bottom. */
  height: number;
  bits?: number;
  compression?: number;
  /** Red, green, blue. */
  masks?: readonly number[];
  /** Red, green, blue of each colour. */
  palette?: readonly (readonly number[])[];
  /** The rows as they are stored. */
  pixels?: readonly number[];
}

/** A BMP file with the header of Windows 3. */
export function bmpOf({
  width,
  height,
  bits = 24,
  compression = 0,
  masks = [],
  palette = [],
  pixels = [],
}: BmpParts): Buffer {
  const offset = 54 + 4 * masks.length + 4 * palette.length;
  const head = Buffer.alloc(54);
  head.write('BM');
  head.writeUInt32LE(offset + pixels.length, 2);
  head.writeUInt32LE(offset, 10);
  head.writeUInt32LE(40, 14);
  head.writeInt32LE(width, 18);
  head.writeInt32LE(height, 22);
  head.writeUInt16LE(1, 26);
  head.writeUInt16LE(bits, 28);
  head.writeUInt32LE(compression, 30);
  head.writeUInt32LE(palette.length, 46);
  const maskBytes = Buffer.alloc(4 * masks.length);
  masks.forEach((mask, i) => {
    maskBytes.writeUInt32LE(mask, 4 * i);
  });
  const colours = Buffer.from(palette.flatMap(([red, green, blue]) => [blue, green, red, 0]));
  return Buffer.concat([head, maskBytes, colours, Buffer.from(pixels)]);
}
