import { decodeImage, type Image } from '../data/images/decode.js';
import { encodePng } from '../data/images/png.js';
import { admCenterCrop } from '../data/images/preprocess.js';
import { splitImages } from '../data/images/split.js';
import { ConfigError } from '../errors.js';
import { writeFileAtomic } from '../files/atomic.js';

/**
 * Reads an image file as for the evaluation of a tokenizer: RGB, ADM's center crop to `size` × `size` pixels.
 * @throws DataError where the file is missing, not an image, or has more than `maxPixels` pixels (default: 268 million)
 */
export async function readImage(
  path: string,
  size: number,
  { maxPixels }: { maxPixels?: number } = {},
): Promise<Image> {
  return admCenterCrop(await decodeImage(path, undefined, maxPixels), size);
}

/**
 * Writes an image as PNG, atomically.
 * @throws OutputError where it cannot be written, or would replace a file that alitok did not write
 */
export async function writeImage(path: string, image: Image): Promise<void> {
  await writeFileAtomic(path, await encodePng(image));
}

/** Images of one size as pixels (B, size, size, 3). @throws ConfigError for an image of another size */
export function join(images: readonly Image[], size: number): Uint8Array {
  const pixels = new Uint8Array(images.length * size * size * 3);
  images.forEach(({ width, height, data }, i) => {
    if (width !== size || height !== size)
      throw new ConfigError(
        `image ${i} is ${width} × ${height}; this tokenizer takes ${size} × ${size}: read it with readImage(path, ${size})`,
      );
    pixels.set(data, i * size * size * 3);
  });
  return pixels;
}

/** Images that share the memory of pixels (B, size, size, 3). */
export function split(pixels: Uint8Array, size: number): Image[] {
  return splitImages(pixels, size).map((data) => ({ width: size, height: size, data }));
}
