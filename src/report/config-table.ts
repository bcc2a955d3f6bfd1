import type { Config } from '../config/schema.js';

/** A row of a table of configs: the key, and its value in each config; undefined where a config lacks it. */
export interface ConfigRow {
  key: string;
  values: (string | undefined)[];
}

/** Every value of a config by its key path, as text. */
function flatten(value: unknown, path: string, into: Map<string, string>): Map<string, string> {
  if (typeof value === 'object' && value !== null)
    for (const [key, part] of Object.entries(value))
      flatten(part, path === '' ? key : `${path}.${key}`, into);
  else into.set(path, String(value));
  return into;
}

/** The keys in which configs differ, in the order of the schema. */
export function configDifferences(configs: readonly (Config | undefined)[]): ConfigRow[] {
  const flat = configs.map((config) => flatten(config ?? {}, '', new Map()));
  const keys = [...new Set(flat.flatMap((one) => [...one.keys()]))];
  return keys
    .map((key) => ({ key, values: flat.map((one) => one.get(key)) }))
    .filter(({ values }) => {
      const known = values.filter((_, i) => configs[i] !== undefined);
      return known.some((value) => value !== known[0]);
    });
}
