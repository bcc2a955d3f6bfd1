import sharp from 'sharp';
import { bytesOf } from '../../files/bytes.js';
import type { Random } from '../../random.js';
import type { Image } from './decode.js';
import { resample } from './resample.js';

/** Rounds halves to even, as Python does. */
function roundHalfEven(x: number): number {
  const rounded = Math.round(x);
  return rounded - x === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}

/**
 * Resizes with a bicubic filter (a = −0.5) and antialiasing. Reductions use libvips, which runs in threads beside the
 * training step and agrees with Pillow to better than 45 dB. Enlargements do not: those of libvips are shifted.
 */
async function resizeBicubic(image: Image, width: number, height: number): Promise<Image> {
  if (width > image.width || height > image.height) return resample(image, width, height, 'bicubic');
  const raw = { width: image.width, height: image.height, channels: 3 } as const;
  const pipeline = sharp(image.data, { raw }).resize(width, height, { fit: 'fill', kernel: 'cubic' });
  return { width, height, data: bytesOf(await pipeline.raw().toBuffer()) };
}

/** Crops (size, size, 3) at column `left` and row `top`; `flip` mirrors it left to right. */
function crop(image: Image, left: number, top: number, size: number, flip = false): Image {
  const data = new Uint8Array(size * size * 3);
  for (let y = 0; y < size; y++) {
    const start = ((top + y) * image.width + left) * 3;
    data.set(image.data.subarray(start, start + size * 3), y * size * 3);
  }
  const cropped = { width: size, height: size, data };
  return flip ? flipHorizontal(cropped) : cropped;
}

/** Mirrors an image left to right. */
function flipHorizontal({ width, height, data }: Image): Image {
  const flipped = new Uint8Array(data.length);
  for (let from = 0, row = 0; row < height; row++) {
    for (let to = (row + 1) * width * 3 - 3; to >= row * width * 3; to -= 3, from += 3) {
      flipped[to] = data[from];
      flipped[to + 1] = data[from + 1];
      flipped[to + 2] = data[from + 2];
    }
  }
  return { width, height, data: flipped };
}

/**
 * ADM's centre crop: halves the image with a box filter while the shorter side is at least 2·size, resizes it so that the
 * shorter side is `size` (bicubic), and crops the central size × size pixels. An image of that size is returned unchanged.
 */
export async function admCenterCrop(image: Image, size: number): Promise<Image> {
  let reduced = image;
  while (Math.min(reduced.width, reduced.height) >= 2 * size) {
    reduced = resample(reduced, reduced.width >> 1, reduced.height >> 1, 'box');
  }
  const scale = size / Math.min(reduced.width, reduced.height);
  const width = roundHalfEven(reduced.width * scale);
  const height = roundHalfEven(reduced.height * scale);
  if (width !== reduced.width || height !== reduced.height) {
    reduced = await resizeBicubic(reduced, width, height);
  }
  if (width === size && height === size) return reduced;
  return crop(reduced, (width - size) >> 1, (height - size) >> 1, size);
}

/**
 * The ten crops that the reference implementation tokenizes: of ADM's crop to ⌊1.1·size⌋, the top left, top right, bottom
 * left, bottom right and central size × size pixels; then the same five of its mirror image.
 */
export async function tenCrop(image: Image, size: number): Promise<Image[]> {
  const larger = await admCenterCrop(image, Math.floor(1.1 * size));
  const far = larger.width - size;
  const middle = roundHalfEven(far / 2);
  return [larger, flipHorizontal(larger)].flatMap((source) => [
    crop(source, 0, 0, size),
    crop(source, far, 0, size),
    crop(source, 0, far, size),
    crop(source, far, far, size),
    crop(source, middle, middle, size),
  ]);
}

/** ADM's crop and its mirror image, which are tokenized without ten-crop. */
export async function cropAndFlip(image: Image, size: number): Promise<Image[]> {
  const cropped = await admCenterCrop(image, size);
  return [cropped, flipHorizontal(cropped)];
}

/** Resizes an image so that its shorter side is `size` (bicubic); returns it unchanged if it already is. */
export async function resizeShorterSide(image: Image, size: number): Promise<Image> {
  const shorter = Math.min(image.width, image.height);
  if (shorter === size) return image;
  // Truncated, as in torchvision's Resize.
  const longer = Math.trunc((size * Math.max(image.width, image.height)) / shorter);
  const wide = image.width > image.height;
  return resizeBicubic(image, wide ? longer : size, wide ? size : longer);
}

/** A random crop (size, size, 3), mirrored with probability ½. The shorter side must be at least `size`. */
export function randomCropAndFlip(image: Image, size: number, random: Random): Image {
  const left = random.integer(image.width - size + 1);
  const top = random.integer(image.height - size + 1);
  return crop(image, left, top, size, random.integer(2) === 1);
}
