import { existsSync } from 'node:fs';
import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { encodePng } from '../data/images/png.js';
import { OutputError } from '../errors.js';
import { makeFolder, outputError } from '../files/atomic.js';
import { Random } from '../random.js';

/** Hue in degrees of each colour; drawn pictures differ from it by `HUE_SPREAD` at most. */
export const COLOURS = { blue: 222, green: 128, red: 0 } as const;

/**
 * Distance to each shape's edge, negative inside, for a point (x, y) relative to the shape's centroid in units
 * of its radius (y points down). Near an edge it is the true distance, so it also gives anti-aliasing.
 */
export const SHAPES = {
  circle: (x: number, y: number) => Math.hypot(x, y) - 1,
  cross: (x: number, y: number) => {
    const [long, short] = [Math.max(Math.abs(x), Math.abs(y)), Math.min(Math.abs(x), Math.abs(y))];
    return Math.max(long - 1.05, short - 0.34);
  },
  square: (x: number, y: number) => Math.max(Math.abs(x), Math.abs(y)) - 0.86,
  triangle: (x: number, y: number) => Math.max(y, Math.abs(x) * (Math.sqrt(3) / 2) - y / 2) - 0.62,
} as const;

export type Colour = keyof typeof COLOURS;
export type Shape = keyof typeof SHAPES;

/** The twelve class names, `blue-circle` … `red-triangle`, in the order of sorted class folders. */
export const PICTURE_CLASSES: readonly string[] = Object.keys(COLOURS).flatMap((colour) =>
  Object.keys(SHAPES).map((shape) => `${colour}-${shape}`),
);

const HUE_SPREAD = 9;
const MAX_TURN = (10 * Math.PI) / 180;

/** Hue in degrees, saturation and value in [0, 1] → red, green, blue in [0, 255]. */
function hsvToRgb(hue: number, saturation: number, value: number): number[] {
  return [5, 3, 1].map((n) => {
    const k = (n + hue / 60 + 6) % 6;
    return 255 * value * (1 - saturation * Math.max(0, Math.min(k, 4 - k, 1)));
  });
}

/**
 * The fraction of each pixel that a shape covers.
 * @returns (size · size) floats in [0, 1], row by row
 */
export function coverage(
  shape: Shape,
  place: { size: number; x: number; y: number; radius: number; turn: number },
): Float32Array {
  const { size, radius } = place;
  const distance = SHAPES[shape];
  const [cos, sin] = [Math.cos(place.turn), Math.sin(place.turn)];
  const covered = new Float32Array(size * size);
  for (let row = 0; row < size; row++) {
    for (let column = 0; column < size; column++) {
      const [dx, dy] = [(column + 0.5 - place.x) / radius, (row + 0.5 - place.y) / radius];
      const d = radius * distance(cos * dx + sin * dy, cos * dy - sin * dx);
      covered[row * size + column] = Math.min(1, Math.max(0, 0.5 - d));
    }
  }
  return covered;
}

/**
 * Draws one picture: a whole shape in its colour, near the center, on a light grey gradient.
 * @param name one of `PICTURE_CLASSES`
 * @returns (size, size, 3) bytes
 */
export function drawPicture(name: string, size: number, random: Random): Uint8Array {
  const [colour, shape] = name.split('-') as [Colour, Shape];
  const between = (low: number, high: number) => low + (high - low) * random.uniform();

  const paint = hsvToRgb(
    COLOURS[colour] + between(-HUE_SPREAD, HUE_SPREAD),
    between(0.78, 0.95),
    between(0.75, 0.95),
  );
  const radius = size * between(0.29, 0.345);
  const off = 0.04 * size;
  const covered = coverage(shape, {
    size,
    radius,
    x: size / 2 + between(-off, off),
    y: size / 2 + between(-off, off),
    turn: between(-MAX_TURN, MAX_TURN),
  });

  const from = between(165, 235);
  const to = between(165, 235);
  const direction = between(0, 2 * Math.PI);
  const [alongX, alongY] = [Math.cos(direction), Math.sin(direction)];
  const tint = [between(-5, 5), between(-5, 5), between(-5, 5)];

  const pixels = new Uint8Array(size * size * 3);
  for (let i = 0; i < size * size; i++) {
    const x = ((i % size) + 0.5) / size - 0.5;
    const y = (Math.floor(i / size) + 0.5) / size - 0.5;
    const grey = from + (to - from) * (0.5 + (alongX * x + alongY * y) / Math.SQRT2);
    for (let c = 0; c < 3; c++) {
      const background = grey + tint[c];
      pixels[3 * i + c] = Math.round(background + covered[i] * (paint[c] - background));
    }
  }
  return pixels;
}

/** The file of a picture, relative to its split's folder. */
const pictureFile = (name: string, number: number) => `${name}/${String(number).padStart(5, '0')}.png`;

/** The folder of a split until it is complete. */
const partialOf = (split: string) => `${split}.partial`;

/** All files that `drawPictures` may leave in its folder, even if it is interrupted. */
export function pictureFiles({ perClass, split }: { perClass: number; split: string }): string[] {
  return [split, partialOf(split)].flatMap((folder) =>
    PICTURE_CLASSES.flatMap((name) =>
      Array.from({ length: perClass }, (_, number) => `${folder}/${pictureFile(name, number)}`),
    ),
  );
}

/**
 * Draws the quickstart's picture set: `folder/split/<class>/00000.png` and so on, for every class of
 * `PICTURE_CLASSES`. A picture depends on seed, split, class and number only. The split's folder gets its name when it
 * is complete.
 * @returns the split's folder
 * @throws OutputError when the split's folder exists or cannot be written
 */
export async function drawPictures(options: {
  folder: string;
  size?: number;
  perClass: number;
  seed: number;
  split: string;
}): Promise<string> {
  const { folder, size = 32, perClass, seed, split } = options;
  const target = join(folder, split);
  const partial = join(folder, partialOf(split));
  await makeFolder(folder);
  for (const path of [target, partial])
    if (existsSync(path)) throw new OutputError(`${path} exists already; remove it or name another folder`);
  const random = Random.of(seed, `pictures/${split}`);
  const write = async (name: string, number: number) => {
    const data = drawPicture(name, size, random.fork(`${name}/${number}`));
    const png = await encodePng({ width: size, height: size, data });
    await writeFile(join(partial, pictureFile(name, number)), png);
  };
  try {
    await mkdir(partial);
  } catch (error) {
    throw outputError(partial, error);
  }
  try {
    for (const name of PICTURE_CLASSES) {
      await mkdir(join(partial, name));
      for (let start = 0; start < perClass; start += 64) {
        const batch = Math.min(64, perClass - start);
        await Promise.all(Array.from({ length: batch }, (_, i) => write(name, start + i)));
      }
    }
    await rename(partial, target);
  } catch (error) {
    await rm(partial, { recursive: true, force: true }).catch(() => {}); // all that is in it was made here
    throw outputError(target, error);
  }
  return target;
}
