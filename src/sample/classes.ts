import { readFile } from 'node:fs/promises';
import { ConfigError, option } from '../errors.js';
import { nearest } from '../suggest.js';

/** Maximum number of class names in a message. */
const SHOWN = 5;

/** Stands for no class in a list of classes; with a leading # also where a class has this name. */
export const NO_CLASS = 'none';

/** The classes of a generator: how many there are, and their names by index, if they have any. */
export interface Classes {
  readonly count: number;
  readonly names: readonly string[];
}

/** Normal forms for comparing names, the strictest first: unchanged, without spaces before commas, in lower case. */
const spaced = (text: string) => text.trim().replace(/\s*,\s*/g, ', ');
const COMPARED = [(text: string) => text, spaced, (text: string) => spaced(text).toLowerCase()];

/** The indices of the classes with a name. */
function named(text: string, names: readonly string[]): number[] {
  for (const form of COMPARED) {
    const found = names.flatMap((name, i) => (name !== '' && form(name) === form(text) ? [i] : []));
    if (found.length > 0) return found;
  }
  return [];
}

/**
 * Parses a class: an index, with or without a leading #, a name, or `none`, whose index is the one after the last class.
 * Throws ConfigError, which says where the class was named, and suggests names.
 */
export function parseClass(text: string, { names, count }: Classes, where = option('classes')): number {
  const plain = text.toLowerCase();
  if (plain === `#${NO_CLASS}`) return count;
  const found = named(text, names);
  const digits = (found.length === 0 ? /^#?(\d+)$/ : /^(\d+)$/).exec(text)?.[1];
  const index =
    plain === NO_CLASS ? count : digits !== undefined && Number(digits) < count ? Number(digits) : undefined;
  const meanings = new Set([...found, ...(index === undefined ? [] : [index])]);
  if (meanings.size === 1) return [...meanings][0];
  const noClass = `#${NO_CLASS} for images without a class`;
  if (found.length > 1)
    throw new ConfigError(
      `${where}: ${found.length} classes have the name ${text}; give one of their indices, ${found.map((i) => `#${i}`).join(', ')}${index === count ? `, or ${noClass}` : ''}`,
    );
  if (found.length === 1)
    throw new ConfigError(
      index === count
        ? `${where}: ${text} is the name of class ${found[0]}, but also stands for no class; write #${found[0]} for the name, or ${noClass}`
        : `${where}: ${text} is both the name of class ${found[0]} and an index; write #${found[0]} for the name, or #${index} for the index`,
    );
  const known = names.filter((name) => name !== '');
  const close = nearest(text, known);
  const hint =
    close !== undefined
      ? `; did you mean ${close}?`
      : known.length > 0
        ? `, or names such as ${known.slice(0, SHOWN).join(', ')}`
        : `; this generator has no class names${where === option('classes') ? `; give them with ${option('classNames')}` : ''}`;
  throw new ConfigError(`${where}: there is no class ${text}; ${rangeText(count)}${hint}`);
}

/** Which indices there are: `classes are 0 to 9`. */
export function rangeText(count: number): string {
  return count === 1 ? 'the only class is 0' : `classes are 0 to ${count - 1}`;
}

/** Reads the names of `count` classes from a file, one per line in the order of the indices. Throws ConfigError. */
export async function readClassNames(path: string, count: number): Promise<string[]> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    throw new ConfigError(`${option('classNames')} ${path}: ${(error as Error).message}`, { cause: error });
  }
  const names = text
    .trimEnd()
    .split('\n')
    .map((line) => line.trim());
  if (names.length !== count)
    throw new ConfigError(
      `${option('classNames')} ${path} has ${names.length} lines, but the generator has ${count} classes; give one name per line`,
    );
  return names;
}

/** Splits a list at its commas, except those inside a name: the longest matching name wins. */
function split(list: string, names: readonly string[]): string[] {
  const parts = list.split(',');
  const found: string[] = [];
  for (let start = 0; start < parts.length; ) {
    let end = parts.length;
    const text = () => parts.slice(start, end).join(',').trim();
    while (end > start + 1 && named(text(), names).length === 0) end -= 1;
    found.push(text());
    start = end;
  }
  return found;
}

/**
 * Parses a comma-separated list of class indices and names, and of `none`, which becomes the index after the last class;
 * without a list, all classes. Throws ConfigError.
 */
export function parseClasses(list: string | undefined, classes: Classes): number[] {
  if (list === undefined) return Array.from({ length: classes.count }, (_, i) => i);
  return split(list, classes.names).map((text) => parseClass(text, classes));
}

/** The name of class c for labels and file names; no class is `none`, or `#none` where a class has that name. */
export function className(c: number, { names, count }: Classes): string {
  if (c < count) return names[c] || `class-${c}`;
  return named(NO_CLASS, names).length > 0 ? `#${NO_CLASS}` : NO_CLASS;
}

/** Labels below pictures of these classes; none if all are of the only class, and it has no name. */
export function classLabels(labels: readonly number[], classes: Classes): string[] {
  const nameless = classes.count === 1 && !classes.names[0] && labels.every((c) => c === 0);
  return nameless ? [] : labels.map((c) => className(c, classes));
}
