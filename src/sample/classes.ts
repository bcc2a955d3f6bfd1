import { ConfigError } from '../errors.js';

/** The class that `text` means: an index, or a name. Throws ConfigError, naming what there is. */
function parseClass(text: string, names: readonly string[], count: number): number {
  const byName = names.indexOf(text);
  if (byName >= 0) return byName;
  const index = Number(text);
  if (Number.isInteger(index) && text !== '' && index >= 0 && index < count) return index;
  const known = names.filter((name) => name !== '').slice(0, 5);
  const named = known.length > 0 ? `, or names such as ${known.join(', ')}` : '';
  throw new ConfigError(`--classes: there is no class ${text}; classes are 0 to ${count - 1}${named}`);
}

/** Class indices from a comma-separated list of indices and names; all classes without one. Throws ConfigError. */
export function parseClasses(list: string | undefined, names: readonly string[], count: number): number[] {
  if (list === undefined) return Array.from({ length: count }, (_, i) => i);
  return list.split(',').map((text) => parseClass(text.trim(), names, count));
}

/** What to call class c in labels and file names. */
export function className(c: number, names: readonly string[]): string {
  return names[c] || `class-${c}`;
}
