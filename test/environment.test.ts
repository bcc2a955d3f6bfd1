import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import sharp from 'sharp';
import { expect, it } from 'vitest';
import { renderSvg } from '../src/data/sheets.js';

const SRC = fileURLToPath(new URL('../src', import.meta.url));

// Threads of libvips and PyTorch read the environment without a lock: a process can crash if it is changed meanwhile.

it('no module changes the environment', () => {
  const sources = readdirSync(SRC, { recursive: true, encoding: 'utf8' }).filter((path) =>
    /\.(ts|js)$/.test(path),
  );
  const changes =
    /process\.env(\.\w+|\[[^\]]+\]) *(\?\?|\|\|)?=(?!=)|delete process\.env|assign\(process\.env/;
  expect('process.env.A ??= 1').toMatch(changes);
  expect('process.env.A === 1').not.toMatch(changes);
  expect(sources.length).toBeGreaterThan(150);
  expect(sources.filter((path) => changes.test(readFileSync(join(SRC, path), 'utf8')))).toEqual([]);
});

it('text is drawn without a change of the environment, while images are decoded', async () => {
  const before = { ...process.env };
  const changed: string[] = [];
  process.env = new Proxy(process.env, {
    set: (target, name, value) => {
      changed.push(String(name));
      return Reflect.set(target, name, value);
    },
    deleteProperty: (target, name) => {
      changed.push(String(name));
      return Reflect.deleteProperty(target, name);
    },
  });
  const image = await sharp({ create: { width: 64, height: 64, channels: 3, background: 'red' } })
    .png()
    .toBuffer();
  const svg = '<svg xmlns="http://www.w3.org/2000/svg" width="50" height="20"><text y="15">text</text></svg>';
  const decoded = Array.from({ length: 50 }, () => sharp(image).raw().toBuffer());
  await Promise.all([renderSvg(svg), ...decoded]);
  expect(changed).toEqual([]);
  expect({ ...process.env }).toEqual(before);
});
