import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { inspectConfig } from '../../src/cli/inspect.js';
import { loadConfig } from '../../src/config/load.js';

const sizes = (name: string) =>
  Object.fromEntries(
    inspectConfig(loadConfig(fileURLToPath(new URL(`../../configs/${name}.yaml`, import.meta.url)), [])),
  );

it('the published configs have the published numbers of parameters', () => {
  expect(sizes('tokenizer')).toMatchObject({
    encoder: '86,079,008',
    'decoder, stage 2': '303,479,564',
    'tokenizer, stage 2': '389,899,308',
  });
  expect(sizes('alitok_b').generator).toBe('177,048,064');
  expect(sizes('alitok_l').generator).toBe('317,851,648');
  expect(sizes('alitok_xl').generator).toBe('662,141,696');
});
