import { COLOURS, type Colour, coverage, PICTURE_CLASSES, SHAPES, type Shape } from './pictures.js';

export interface PictureMatch {
  colour: Colour | 'none';
  shape: Shape | 'none';
  /** Fraction of the coloured pixels that have the colour. */
  colourScore: number;
  /** Overlap (intersection over union) of the coloured pixels with the best template. */
  shapeScore: number;
}

export interface MatchShare {
  /** Fraction of the pictures that show the colour and the shape of their class. */
  both: number;
  colour: number;
  shape: number;
  perClass: { name: string; count: number; both: number; colour: number; shape: number }[];
}

/** Smallest difference between the largest and smallest channel at which a picture has any colour. */
const MIN_CHROMA = 60;
/** Greatest distance, in degrees, from a colour's hue to that of a pixel with the colour. */
const HUE_WIDTH = 40;
const MIN_COLOUR_SCORE = 0.7;
const MIN_SHAPE_SCORE = 0.7;
/** The smallest and largest fraction of a picture that a shape covers; drawn ones cover 0.16 to 0.38. */
const [MIN_AREA, MAX_AREA] = [0.06, 0.55];
const TURNS = [-18, -12, -6, 0, 6, 12, 18].map((degrees) => (degrees * Math.PI) / 180);
const SCALES = [0.94, 1, 1.06];

/** Area of each shape of radius 1, measured on a large drawing. */
const UNIT_AREA = Object.fromEntries(
  shapeNames().map((shape) => {
    const covered = coverage(shape, { size: 128, x: 64, y: 64, radius: 48, turn: 0 });
    return [shape, sum(covered) / 48 ** 2];
  }),
) as Record<Shape, number>;

function shapeNames(): Shape[] {
  return Object.keys(SHAPES) as Shape[];
}

function sum(values: Float32Array): number {
  return values.reduce((a, b) => a + b, 0);
}

/** Hue in degrees; `chroma` = largest − smallest channel, above 0. */
function hueOf(r: number, g: number, b: number, chroma: number): number {
  if (r >= g && r >= b) return (60 * (g - b)) / chroma;
  return g >= b ? 120 + (60 * (b - r)) / chroma : 240 + (60 * (r - g)) / chroma;
}

/**
 * Finds the colour and shape of a picture by rules, without a network. The background is grey, so the difference between
 * the largest and smallest channel of a pixel shows how much of it the shape covers, even at blurred edges. That mask is
 * compared with a drawing of every shape with the same centroid and area; the hues of the masked pixels give the colour.
 * @param pixels (size, size, 3) bytes
 */
export function matchPicture(pixels: Uint8Array, size: number): PictureMatch {
  const chroma = new Float32Array(size * size);
  for (let i = 0; i < chroma.length; i++) {
    const [r, g, b] = pixels.subarray(3 * i, 3 * i + 3);
    chroma[i] = Math.max(r, g, b) - Math.min(r, g, b);
  }
  const nothing: PictureMatch = { colour: 'none', shape: 'none', colourScore: 0, shapeScore: 0 };
  const full = chroma.toSorted()[Math.floor(chroma.length * (1 - MIN_AREA / 2))];
  if (full < MIN_CHROMA) return nothing;

  // A ramp around one half keeps the position of a blurred edge and removes the background's noise.
  const mask = chroma.map((value) => Math.min(1, Math.max(0, (2 * value) / full - 0.5)));
  const area = sum(mask);
  if (area < MIN_AREA * mask.length || area > MAX_AREA * mask.length) return nothing;
  return { ...matchColour(pixels, chroma, mask), ...matchShape(mask, area, size) };
}

function matchColour(pixels: Uint8Array, chroma: Float32Array, mask: Float32Array) {
  const near = new Map(Object.keys(COLOURS).map((colour) => [colour as Colour, 0]));
  for (let i = 0; i < mask.length; i++) {
    if (mask[i] === 0) continue;
    const hue = hueOf(pixels[3 * i], pixels[3 * i + 1], pixels[3 * i + 2], chroma[i]);
    for (const [colour, mass] of near) {
      const away = Math.abs(((hue - COLOURS[colour] + 540) % 360) - 180);
      if (away < HUE_WIDTH) near.set(colour, mass + mask[i]);
    }
  }
  const [colour, mass] = [...near].reduce((a, b) => (b[1] > a[1] ? b : a));
  const colourScore = mass / sum(mask);
  return { colour: colourScore < MIN_COLOUR_SCORE ? ('none' as const) : colour, colourScore };
}

function matchShape(mask: Float32Array, area: number, size: number) {
  let [x, y] = [0, 0];
  for (let i = 0; i < mask.length; i++) {
    x += (mask[i] * ((i % size) + 0.5)) / area;
    y += (mask[i] * (Math.floor(i / size) + 0.5)) / area;
  }
  let best: { shape: Shape | 'none'; shapeScore: number } = { shape: 'none', shapeScore: 0 };
  for (const shape of shapeNames()) {
    for (const scale of SCALES) {
      const radius = scale * Math.sqrt(area / UNIT_AREA[shape]);
      for (const turn of shape === 'circle' ? [0] : TURNS) {
        const template = coverage(shape, { size, x, y, radius, turn });
        let [inBoth, inEither] = [0, 0];
        for (let i = 0; i < mask.length; i++) {
          inBoth += Math.min(mask[i], template[i]);
          inEither += Math.max(mask[i], template[i]);
        }
        if (inBoth / inEither > best.shapeScore) best = { shape, shapeScore: inBoth / inEither };
      }
    }
  }
  return best.shapeScore < MIN_SHAPE_SCORE ? { ...best, shape: 'none' as const } : best;
}

/**
 * The fraction of pictures that show their class.
 * @param images (size, size, 3) bytes each
 * @param labels the class name of each image, from `PICTURE_CLASSES`
 */
export function matchShare(images: readonly Uint8Array[], labels: readonly string[]): MatchShare {
  const right = images.map((pixels, i) => {
    const found = matchPicture(pixels, Math.sqrt(pixels.length / 3));
    const [colour, shape] = labels[i].split('-');
    return { name: labels[i], colour: found.colour === colour, shape: found.shape === shape };
  });
  const shares = (of: typeof right) => ({
    both: of.filter((one) => one.colour && one.shape).length / of.length,
    colour: of.filter((one) => one.colour).length / of.length,
    shape: of.filter((one) => one.shape).length / of.length,
  });
  const perClass = PICTURE_CLASSES.map((name) => ({ name, of: right.filter((one) => one.name === name) }))
    .filter(({ of }) => of.length > 0)
    .map(({ name, of }) => ({ name, count: of.length, ...shares(of) }));
  return { ...shares(right), perClass };
}
