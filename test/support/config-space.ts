import { z } from 'zod';
import { loadConfig } from '../../src/config/load.js';
import { type Config, schema } from '../../src/config/schema.js';
import { ConfigError } from '../../src/errors.js';
import type { Random } from '../../src/random.js';

interface Node {
  type?: string;
  default?: unknown;
  const?: unknown;
  enum?: unknown[];
  anyOf?: Node[];
  properties?: Record<string, Node>;
  items?: Node;
  minItems?: number;
  minimum?: number;
  exclusiveMinimum?: number;
  maximum?: number;
  exclusiveMaximum?: number;
  multipleOf?: number;
}

/** Values by key, such as `tokenizer.image_size`. */
export type Values = Record<string, unknown>;

type Limits = Record<string, readonly unknown[]>;

/** How many steps above its minimum a number without an upper bound may be. */
const SMALL = 4;

/** How often keys with invalid values are drawn again. */
const ATTEMPTS = 200;

const pick = <T>(values: readonly T[], random: Random): T => values[random.integer(values.length)];

function keysBelow(node: Node, path = ''): [key: string, node: Node][] {
  return Object.entries(node.properties ?? {}).flatMap(([name, child]): [string, Node][] => {
    const key = path ? `${path}.${name}` : name;
    return child.properties ? keysBelow(child, key) : [[key, child]];
  });
}

/** All keys of the schema. */
const ALL_KEYS: ReadonlyMap<string, Node> = new Map(
  keysBelow(z.toJSONSchema(schema, { io: 'input' }) as Node),
);
const SECTIONS = new Set(
  [...ALL_KEYS.keys()].filter((key) => key.includes('.')).map((key) => key.split('.')[0]),
);

/** Random valid configs, drawn from the schema itself, so that new keys are included automatically. */
export class ConfigSpace {
  readonly keys: ReadonlyMap<string, Node>;

  constructor(
    private readonly options: {
      /** Values of keys when no value is drawn for them. */
      base: Values;
      /** Values of keys that are never drawn. */
      fixed: Values;
      /** Values to draw from instead of those that the schema allows, by the last parts of a key. */
      limits: Limits;
    },
  ) {
    this.keys = new Map([...ALL_KEYS].filter(([key]) => !(key in options.fixed)));
  }

  /** Values to test a key with: its bounds, its default, and a value in between. */
  values(key: string, random: Random): unknown[] {
    return this.variants(key, this.keys.get(key)!, random);
  }

  private variants(key: string, node: Node, random: Random): unknown[] {
    const limit = Object.entries(this.options.limits).find(([end]) => key === end || key.endsWith(`.${end}`));
    if (limit) return [...limit[1]];
    if (node.const !== undefined) return [node.const];
    if (node.enum) return node.enum;
    if (node.anyOf) return node.anyOf.flatMap((option) => this.variants(key, option, random));
    if (node.properties) return this.sections(key, node.properties, random);
    if (node.items) {
      const items = this.variants(key, node.items, random);
      const least = node.minItems ?? 0;
      return items.map((item) => {
        const others = Array.from({ length: least + random.integer(2) }, () => pick(items, random));
        const list = [...others];
        list[random.integer(Math.max(1, list.length))] = item;
        return list;
      });
    }
    if (node.type === 'boolean') return [false, true];
    if (node.type === 'null') return [null];
    if (node.type === 'string') return [...new Set(['x', node.default ?? 'x'])];
    return numbers(node, random);
  }

  /** Sections that cover each value of each key; the other keys are drawn. */
  private sections(key: string, properties: Record<string, Node>, random: Random): unknown[] {
    const all = Object.entries(properties).map(([name, child]): [string, unknown[]] => [
      name,
      this.variants(`${key}.${name}`, child, random),
    ]);
    return all.flatMap(([name, values]) =>
      values.map((value) => ({
        ...Object.fromEntries(all.map(([other, others]) => [other, pick(others, random)])),
        [name]: value,
      })),
    );
  }

  /**
   * Values that the schema and `check` accept: `wanted`, and values from `choices` for about half of the other keys. Keys
   * that the error message names are drawn again. Undefined if no valid values are found.
   */
  draw(
    random: Random,
    wanted: Values,
    choices: (key: string) => readonly unknown[],
    check: (config: Config) => void,
  ): Values | undefined {
    const free = [...this.keys.keys()].filter((key) => !(key in wanted));
    const drawn: Values = {};
    for (const key of free) if (random.uniform() < 0.5) drawn[key] = pick(choices(key), random);
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const values = { ...this.options.base, ...this.options.fixed, ...drawn, ...wanted };
      const complaint = refusal(values, check);
      if (complaint === undefined) return values;
      const named = free.filter((key) => names(complaint, key));
      if (named.length === 0) return undefined;
      const key = pick(named, random);
      drawn[key] = pick(this.values(key, random), random);
    }
    return undefined;
  }
}

/** The error message for invalid values. */
function refusal(values: Values, check: (config: Config) => void): string | undefined {
  try {
    check(loadConfig(undefined, toOverrides(values)));
    return undefined;
  } catch (error) {
    if (error instanceof ConfigError) return error.message;
    throw error;
  }
}

function numbers(node: Node, random: Random): number[] {
  const step = node.type === 'integer' ? (node.multipleOf ?? 1) : undefined;
  const least = node.minimum ?? (node.exclusiveMinimum ?? 0) + (step ?? 1e-6);
  const bound = node.exclusiveMaximum === undefined ? node.maximum : node.exclusiveMaximum - 1e-3;
  const most = bound === undefined || bound === Number.MAX_SAFE_INTEGER ? least + SMALL * (step ?? 1) : bound;
  const between = step
    ? least + step * random.integer(Math.floor((most - least) / step) + 1)
    : least + random.uniform() * (most - least);
  const standard = typeof node.default === 'number' && node.default <= most ? [node.default] : [];
  return [...new Set([least, most, between, ...standard])];
}

/** Whether a message names a key. */
function names(message: string, key: string): boolean {
  return new RegExp(`(^|[^\\w.])${key.replaceAll('.', '\\.')}([^\\w]|$)`).test(message);
}

/** The keys that a message names. */
export function namedKeys(message: string): string[] {
  return [...ALL_KEYS.keys()].filter((key) => names(message, key));
}

/** Words in a message that look like a key but are not one. */
export function unknownKeys(message: string): string[] {
  const words = message.match(/(?<![\w./])[a-z]\w*(\.\w+)+/g) ?? [];
  return words.filter((word) => {
    const known = [...ALL_KEYS.keys()].some(
      (key) => key === word || key.startsWith(`${word}.`) || word.startsWith(`${key}.`),
    );
    return SECTIONS.has(word.split('.')[0]) && !known;
  });
}

/** The values as command-line overrides. */
export function toOverrides(values: Values): string[] {
  return Object.entries(values).map(([key, value]) => `${key}=${JSON.stringify(value)}`);
}
