import { readFileSync } from 'node:fs';
import { dirname, isAbsolute, join, resolve } from 'node:path';
import { type Document, isMap, isNode, LineCounter, parse, parseDocument, stringify } from 'yaml';
import { ConfigError } from '../errors.js';
import { type Config, DEFAULT_LISTS, parseConfig } from './schema.js';

type Section = Record<string, unknown>;

/** One YAML file of a config. */
interface Layer {
  file: string;
  document: Document;
  lines: LineCounter;
}

interface Override {
  text: string;
  path: string[];
  value: unknown;
}

function isSection(value: unknown): value is Section {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Merges `over` into `base`: sections key by key; all other values, lists too, are replaced as a whole. */
function merge(base: unknown, over: unknown): unknown {
  if (!isSection(base) || !isSection(over)) return over;
  const merged: Section = { ...base };
  for (const [key, value] of Object.entries(over))
    merged[key] = key in base ? merge(base[key], value) : value;
  return merged;
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const reason =
      { ENOENT: 'not found', EISDIR: 'is a folder', EACCES: 'no permission' }[code ?? ''] ?? message;
    throw new ConfigError(`config file ${file}: ${reason}`, { cause: error });
  }
}

/** A file's values, merged into those of the file that it `extends`; `layers` are the files, this one first. */
function readFile(file: string, readers: string[] = []): { values: Section; layers: Layer[] } {
  if (readers.some((reader) => resolve(reader) === resolve(file)))
    throw new ConfigError(`${readers.at(-1)}: extends: leads in a circle back to ${file}`);
  const lines = new LineCounter();
  const document = parseDocument(readText(file), { lineCounter: lines, prettyErrors: false });
  const [error] = document.errors;
  if (error) {
    const { line, col } = lines.linePos(error.pos[0]);
    throw new ConfigError(`${file}:${line}:${col}: not valid YAML: ${error.message}`);
  }
  const content: unknown = document.toJS() ?? {};
  if (!isSection(content))
    throw new ConfigError(`${file}: must hold sections and keys, not one value or list`);
  const { extends: parent, ...values } = content;
  const layer = { file, document, lines };
  if (parent === undefined) return { values, layers: [layer] };
  if (typeof parent !== 'string') throw new ConfigError(`${file}: extends: must be the path of another file`);
  const base = readFile(isAbsolute(parent) ? parent : join(dirname(file), parent), [...readers, file]);
  return { values: merge(base.values, values) as Section, layers: [layer, ...base.layers] };
}

function parseOverride(text: string): Override {
  const [, key, value] = /^([^=]+)=(.*)$/s.exec(text) ?? [];
  if (key === undefined)
    throw new ConfigError(
      `override ${text}: must have the form key.sub=value, such as tokenizer.image_size=64`,
    );
  if (!/^[a-z][a-z0-9_]*(\.([a-z][a-z0-9_]*|\d+))*$/.test(key))
    throw new ConfigError(`override ${text}: ${key} is not a key; keys look like tokenizer.encoder.width`);
  try {
    return { text, path: key.split('.'), value: parse(value) };
  } catch (error) {
    throw new ConfigError(`override ${text}: the value is not valid YAML`, { cause: error });
  }
}

/** Sets one value; missing sections on the way are created, missing lists are copied from the defaults. */
function applyOverride(values: Section, { text, path, value }: Override): void {
  let node: Section | unknown[] = values;
  let defaults: unknown = DEFAULT_LISTS;
  path.forEach((key, i) => {
    const here = path.slice(0, i).join('.');
    if (Array.isArray(node) && !(Number(key) < node.length))
      throw new ConfigError(
        `override ${text}: ${here} is a list of ${node.length}; its entries are ${here}.0 to ${here}.${node.length - 1}`,
      );
    const section = node as Section;
    if (i === path.length - 1) {
      section[key] = value;
      return;
    }
    defaults = isSection(defaults) ? defaults[key] : undefined;
    const next = Object.hasOwn(section, key) ? section[key] : undefined;
    if (next === undefined || next === null)
      section[key] = Array.isArray(defaults) ? structuredClone(defaults) : {};
    else if (typeof next !== 'object')
      throw new ConfigError(
        `override ${text}: ${[...path.slice(0, i), key].join('.')} has no keys of its own`,
      );
    node = section[key] as Section | unknown[];
  });
}

/** Line of the key at `path`; undefined if the file does not set it. */
function lineOf({ document, lines }: Layer, path: readonly PropertyKey[]): number | undefined {
  const parent = document.getIn(path.slice(0, -1), true);
  const key = path.at(-1);
  const pair = isMap(parent) ? parent.items.find((item) => String(item.key) === key) : undefined;
  const node = pair ? pair.key : document.getIn(path, true);
  return isNode(node) && node.range ? lines.linePos(node.range[0]).line : undefined;
}

function valueAt(values: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce((value, key) => (value as Section | null | undefined)?.[String(key)], values);
}

/** A config with the source of each of its values. */
export interface ResolvedConfig {
  config: Config;
  /** Where the value at a key path was set: `override`, or `FILE:LINE`; undefined for a default. */
  sourceOf(path: readonly string[]): string | undefined;
}

/** Sections whose values take the place of the schema's defaults. */
export interface Defaults {
  /** Their source, for messages. */
  from: string;
  values: object;
}

/**
 * Reads a config as `loadConfig` does, and remembers where its values come from.
 * @throws ConfigError as `loadConfig`
 */
export function resolveConfig(
  file: string | undefined,
  overrides: readonly string[] = [],
  defaults: Defaults = { from: 'defaults', values: {} },
): ResolvedConfig {
  const { values: own, layers } = file === undefined ? { values: {}, layers: [] } : readFile(file);
  const values = merge(structuredClone(defaults.values), own) as Section;
  const parsed = overrides.map(parseOverride);
  for (const override of parsed) applyOverride(values, override);

  const where = (path: PropertyKey[]) => {
    const override = parsed.findLast((o) =>
      o.path.every((key, i) => i >= path.length || key === String(path[i])),
    );
    if (override && path.length > 0) return `override ${override.text}`;
    // A missing key: the section that it is missing from.
    for (let depth = path.length; depth > 0; depth--) {
      for (const layer of layers) {
        const line = lineOf(layer, path.slice(0, depth));
        if (line !== undefined) return `${layer.file}:${line}`;
      }
      if (depth === path.length && valueAt(defaults.values, path) !== undefined) return defaults.from;
    }
    return file ?? 'defaults';
  };
  const sourceOf = (path: readonly string[]) => {
    if (valueAt(values, path) === undefined) return undefined;
    if (parsed.some((o) => o.path.length <= path.length && o.path.every((key, i) => key === path[i])))
      return 'override';
    for (const layer of layers) {
      const line = lineOf(layer, path);
      if (line !== undefined) return `${layer.file}:${line}`;
    }
    return undefined; // of a list among the defaults, which an override reached into
  };
  return { config: parseConfig(values, where), sourceOf };
}

/**
 * Reads an experiment: the YAML file (none: the published values), what it `extends`, and `key.sub=value`
 * overrides, whose values are YAML and whose keys reach into lists by index.
 * @throws ConfigError with one line: file and line (or override), key, what is wrong
 */
export function loadConfig(file: string | undefined, overrides: readonly string[] = []): Config {
  return resolveConfig(file, overrides).config;
}

/** All single values of a config, with their key paths; the entries of lists have numbers as keys. */
export function valuesOf(config: Config): { path: string[]; value: unknown }[] {
  const visit = (value: unknown, path: string[]): { path: string[]; value: unknown }[] =>
    typeof value === 'object' && value !== null
      ? Object.entries(value).flatMap(([key, part]) => visit(part, [...path, key]))
      : [{ path, value }];
  return visit(config, []);
}

/** The config as YAML, which `loadConfig` reads. */
export function configToYaml(config: Config): string {
  return stringify(config);
}
