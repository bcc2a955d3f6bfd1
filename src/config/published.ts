import { fileURLToPath } from 'node:url';
import { loadConfig } from './load.js';
import type { Config } from './schema.js';

const NAMES = ['alitok_b', 'alitok_l', 'alitok_xl'] as const;

/** The configs of the published models by name; each has the published tokenizer. */
export function publishedConfigs(): Map<string, Config> {
  const file = (name: string) => fileURLToPath(new URL(`../../configs/${name}.yaml`, import.meta.url));
  return new Map(NAMES.map((name) => [name, loadConfig(file(name))]));
}
