import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import sharp from 'sharp';
import { expect, it } from 'vitest';
import { renderSvg } from '../src/data/sheets.js';
import { setDefaults } from '../src/engine/environment.js';

const SRC = fileURLToPath(new URL('../src', import.meta.url));

// Threads of libvips, PyTorch and TensorFlow read the environment without a lock: a process can crash if it is changed meanwhile.

/** The one module that changes it, when an engine starts. */
const HOME = 'engine/environment.ts';

/** Changes of the environment, also under the name `env`. */
const CHANGES = new RegExp(
  [
    /\benv(\.\w+|\[[^\]]+\]) *(\?\?|\|\||&&|\+)?=(?!=)/,
    /\bdelete (process\.)?env\b/,
    /\b(assign|set|deleteProperty|defineProperty|defineProperties)\((process\.)?env\b/,
    /\bprocess\.env *=(?!=)/,
    // Other names, under which a change would not be noticed.
    /\b(const|let|var) \w+ *(:[^=]+)?= *process\.env *[;,\n]/,
    /\{[^{}]*\benv: *\w+[^{}]*\} *= *process\b/,
  ]
    .map(({ source }) => source)
    .join('|'),
);

it.each([
  'process.env.A ??= 1',
  "process.env['A'] = 1",
  'const { env } = process;\nenv.A ??= 1;',
  'delete env.A',
  'Object.assign(process.env, {})',
  'Reflect.set(env, name, 1)',
  'process.env = {}',
  'const environment = process.env;',
  'const { env: environment } = process;',
])('a change of the environment is noticed: %s', (text) => expect(text).toMatch(CHANGES));

it.each([
  'process.env.A === 1',
  'const { A } = process.env;',
  'spawn(name, { env: { ...process.env, A: 1 } })',
  'const threads = process.env.A;',
])('what only reads it is allowed: %s', (text) => expect(text).not.toMatch(CHANGES));

it('only the home of these changes changes the environment', () => {
  const sources = readdirSync(SRC, { recursive: true, encoding: 'utf8' }).filter((path) =>
    /\.(ts|c?js)$/.test(path),
  );
  expect(sources.length).toBeGreaterThan(150);
  expect(sources.filter((path) => CHANGES.test(readFileSync(join(SRC, path), 'utf8')))).toEqual([HOME]);
});

it('its defaults leave alone what the user has set', () => {
  process.env.ALITOK_TEST_SET = 'mine';
  setDefaults({ ALITOK_TEST_SET: 'default', ALITOK_TEST_UNSET: 'default', ALITOK_TEST_NOTHING: undefined });
  const { ALITOK_TEST_SET, ALITOK_TEST_UNSET, ALITOK_TEST_NOTHING } = process.env;
  expect([ALITOK_TEST_SET, ALITOK_TEST_UNSET, ALITOK_TEST_NOTHING]).toEqual(['mine', 'default', undefined]);
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
