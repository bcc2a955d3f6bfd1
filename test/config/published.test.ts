import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { loadConfig } from '../../src/config/load.js';
import { publishedModels } from '../../src/config/published.js';

it.each([...publishedModels()])('configs/%s.yaml is the published model', (name, model) => {
  const config = loadConfig(fileURLToPath(new URL(`../../configs/${name}.yaml`, import.meta.url)));
  expect(config.name).toBe(name);
  expect(config).toMatchObject(model);
});
