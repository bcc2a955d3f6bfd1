import sharp from 'sharp';
import { expect, test } from 'vitest';
import { matchPicture, matchShare } from '../../src/quickstart/picture-match.js';
import { drawPicture, PICTURE_CLASSES } from '../../src/quickstart/pictures.js';
import { Random } from '../../src/random.js';

const SIZE = 32;
const labels = Array.from({ length: 240 }, (_, i) => PICTURE_CLASSES[i % 12]);

function drawn(): Uint8Array[] {
  const random = Random.of(11, 'match');
  return labels.map((name) => drawPicture(name, SIZE, random));
}

async function blurred(pixels: Uint8Array, sigma: number): Promise<Uint8Array> {
  return sharp(pixels, { raw: { width: SIZE, height: SIZE, channels: 3 } })
    .blur(sigma)
    .raw()
    .toBuffer();
}

function noisy(pixels: Uint8Array, sigma: number, random: Random): Uint8Array {
  return pixels.map((value) => Math.max(0, Math.min(255, Math.round(value + sigma * random.normal()))));
}

test('drawn pictures show their class', () => {
  const share = matchShare(drawn(), labels);
  expect(share.both).toBeGreaterThanOrEqual(0.99);
  expect(share.perClass.map(({ name }) => name)).toEqual(PICTURE_CLASSES);
  for (const one of share.perClass) expect(one.count).toBe(20);
});

test('a blurred and noisy picture still shows its class', async () => {
  const random = Random.of(12, 'noise');
  for (const sigma of [0.8, 1.6]) {
    const soft = await Promise.all(drawn().map((pixels) => blurred(pixels, sigma)));
    const share = matchShare(
      soft.map((pixels) => noisy(pixels, 8, random)),
      labels,
    );
    expect(share.both).toBeGreaterThanOrEqual(0.95);
  }
});

test('background, a single colour and noise show no class', async () => {
  const random = Random.of(13, 'nothing');
  const nothing = { colour: 'none', shape: 'none' };
  const grey = Uint8Array.from({ length: SIZE * SIZE * 3 }, (_, i) => 80 + Math.floor(i / 96) * 2);
  expect(matchPicture(grey, SIZE)).toMatchObject(nothing);
  expect(matchPicture(noisy(grey, 8, random), SIZE)).toMatchObject(nothing);
  const red = Uint8Array.from({ length: SIZE * SIZE * 3 }, (_, i) => (i % 3 === 0 ? 220 : 20));
  expect(matchPicture(red, SIZE)).toMatchObject(nothing);
  for (let i = 0; i < 50; i++) {
    const noise = Uint8Array.from({ length: SIZE * SIZE * 3 }, () => random.integer(256));
    expect(matchPicture(noise, SIZE)).toMatchObject(nothing);
    const { shape } = matchPicture(await blurred(noise, 1 + (i % 4)), SIZE);
    expect(shape).toBe('none');
  }
});

test('a shape with two colours, or with a colour of no class, has no colour', () => {
  const random = Random.of(14, 'two');
  const red = drawPicture('red-circle', SIZE, random);
  const half = red.slice();
  const swapped = red.slice();
  for (let i = 0; i < SIZE * SIZE; i++) {
    const [r, g, b] = red.subarray(3 * i, 3 * i + 3);
    if (i % 2 === 0) half.set([b, g, r], 3 * i);
    swapped.set([r, Math.max(r, g), b], 3 * i); // red → yellow
  }
  expect(matchPicture(half, SIZE)).toMatchObject({ colour: 'none', shape: 'circle' });
  expect(matchPicture(swapped, SIZE)).toMatchObject({ colour: 'none', shape: 'circle' });
});

test('shares count colour, shape and both separately', () => {
  const random = Random.of(15, 'shares');
  const images = ['red-circle', 'red-cross', 'blue-circle', 'green-square'].map((name) =>
    drawPicture(name, SIZE, random),
  );
  const share = matchShare(images, ['red-circle', 'red-circle', 'red-circle', 'blue-cross']);
  expect(share).toEqual({
    both: 1 / 4,
    colour: 2 / 4,
    shape: 2 / 4,
    perClass: [
      { name: 'blue-cross', count: 1, both: 0, colour: 0, shape: 0 },
      { name: 'red-circle', count: 3, both: 1 / 3, colour: 2 / 3, shape: 2 / 3 },
    ],
  });
});
