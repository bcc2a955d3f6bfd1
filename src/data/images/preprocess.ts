import sharp from 'sharp';
import { bytesOf } from '../../files/bytes.js';
import type { Random } from '../../random.js';
import type { Image } from './decode.js';
import { resample } from './resample.js';

/** Rounds halves to the even neighbour, as Python does. */
function roundHalfEven(x: number): number {
  const rounded = Math.round(x);
  return rounded - x === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}

/**
 * Bicubic (a = −0.5), antialiased. Reductions are left to libvips, which runs in threads beside the
 * training step and agrees with Pillow to better than 45 dB; its enlargements are shifted, so not those.
 */
async function resizeBicubic(image: Image, width: number, height: number): Promise<Image> {
  if (width > image.width || height > image.height) return resample(image, width, height, 'bicubic');
  const raw = { width: image.width, height: image.height, channels: 3 } as const;
  const pipeline = sharp(image.data, { raw }).resize(width, height, { fit: 'fill', kernel: 'cubic' });
  return { width, height, data: bytesOf(await pipeline.raw().toBuffer()) };
}

/** The part (size, size, 3) at column `left` and row `top`, mirrored left to right where `flip` is set. */
function crop(image: Image, left: number, top: number, size: number, flip = false): Image {
  const data = new Uint8Array(size * size * 3);
  for (let y = 0; y < size; y++) {
    const start = ((top + y) * image.width + left) * 3;
    data.set(image.data.subarray(start, start + size * 3), y * size * 3);
  }
  const cropped = { width: size, height: size, data };
  return flip ? flipHorizontal(cropped) : cropped;
}

/** The image mirrored left to right. */
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
 * ADM's centre crop: halved with a box filter while the shorter side is at least
 * 2·size, then bicubic to shorter side = size, then the central size × size. An image that has the size
 * already is returned as it is.
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
 * The ten crops of size × size that the reference tokenizes: from the ADM crop to
 * ⌊1.1·size⌋ top left, top right, bottom left, bottom right, centre; then the same five of its mirror image.
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

/** The ADM crop and its mirror image: what is tokenized without ten-crop. */
export async function cropAndFlip(image: Image, size: number): Promise<Image[]> {
  const cropped = await admCenterCrop(image, size);
  return [cropped, flipHorizontal(cropped)];
}

/** The image resized, bicubic, so that its shorter side is `size`; as it is where that holds already. */
export async function resizeShorterSide(image: Image, size: number): Promise<Image> {
  const shorter = Math.min(image.width, image.height);
  if (shorter === size) return image;
  // Truncated, as torchvision's Resize does
  const longer = Math.trunc((size * Math.max(image.width, image.height)) / shorter);
  const wide = image.width > image.height;
  return resizeBicubic(image, wide ? longer : size, wide ? size : longer);
}

/** A random part (size, size, 3), mirrored in half of the cases; the shorter side is at least `size`. */
export function randomCropAndFlip(image: Image, size: number, random: Random): Image {
  const left = random.integer(image.width - size + 1);
  const top = random.integer(image.height - size + 1);
  return crop(image, left, top, size, random.integer(2) === 1);
}
