import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { decodeImage, type Image } from '../../src/data/images/decode.js';
import { admCenterCrop, tenCrop } from '../../src/data/images/preprocess.js';

// Photographs, and the results of the reference's preprocessing (Pillow, torchvision): the goldfish is
// enlarged for the ten-crop and has odd sizes when halved, the cat carries a colour profile.
const FOLDER = fileURLToPath(new URL('../fixtures/preprocess', import.meta.url));

function psnr(a: Image, b: Image): number {
  expect([a.width, a.height]).toEqual([b.width, b.height]);
  const squares = a.data.reduce((sum, value, i) => sum + (value - b.data[i]) ** 2, 0);
  return 10 * Math.log10(255 ** 2 / (squares / a.data.length));
}

describe.each([
  { name: 'n01443537_goldfish', members: [1, 4, 9] },
  { name: 'n02123045_tabby', members: [9] },
])('$name', async ({ name, members }) => {
  const photograph = await decodeImage(join(FOLDER, `${name}.JPEG`));
  const golden = (kind: string) => decodeImage(join(FOLDER, `${name}.${kind}.png`));

  it.each([256, 64])('ADM centre crop to %i', async (size) => {
    expect(psnr(await admCenterCrop(photograph, size), await golden(`adm${size}`))).toBeGreaterThan(40);
  });

  it.each(members)('ten-crop member %i', async (member) => {
    const crops = await tenCrop(photograph, 256);
    expect(psnr(crops[member], await golden(`tencrop${member}`))).toBeGreaterThan(40);
  });
});
