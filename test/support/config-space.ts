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

/** The largest value of a number that may be as large as one likes. */
const SMALL = 4;

/** How often keys that do not fit are drawn again. */
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

/** Values of the configs that the schema takes, drawn from the schema itself: a key that is new is drawn as well. */
export class ConfigSpace {
  readonly keys: ReadonlyMap<string, Node>;

  constructor(
    private readonly options: {
      /** Values of keys where nothing is drawn for them. */
      base: Values;
      /** Values of keys for which nothing is ever drawn. */
      fixed: Values;
      /** Values to draw from in place of those that the schema allows, by the last parts of a key. */
      limits: Limits;
    },
  ) {
    this.keys = new Map([...ALL_KEYS].filter(([key]) => !(key in options.fixed)));
  }

  /** What a key is to be tried with: its bounds, its default, and what lies between. */
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

  /** Sections of which each has one key at one of its values, and the others drawn. */
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
   * Values that the schema and `check` take: `wanted`, and others from `choices` for about half of the keys. Keys that do
   * not fit are drawn again, as the message names them; undefined where none are found.
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

/** The message that values are refused with. */
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

/** What looks like a key in a message and is none. */
export function unknownKeys(message: string): string[] {
  const words = message.match(/(?<![\w./])[a-z]\w*(\.\w+)+/g) ?? [];
  return words.filter((word) => {
    const known = [...ALL_KEYS.keys()].some(
      (key) => key === word || key.startsWith(`${word}.`) || word.startsWith(`${key}.`),
    );
    return SECTIONS.has(word.split('.')[0]) && !known;
  });
}

/** As on the command line. */
export function toOverrides(values: Values): string[] {
  return Object.entries(values).map(([key, value]) => `${key}=${JSON.stringify(value)}`);
}
