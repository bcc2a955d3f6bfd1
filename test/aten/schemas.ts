import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

// The schemas of the ATen operators that the libtorch engine uses, by version of PyTorch (collect.js).

export interface Parameter {
  /** Without alias annotations and fixed lengths: `Tensor`, `int`, `Scalar[]`, `Tensor?[]` (with gaps). */
  type: string;
  /** The length of a list, if it is fixed. */
  length?: number;
  optional: boolean;
  name: string;
  hasDefault: boolean;
}

export interface Schema {
  parameters: Parameter[];
  /** Whether the operator returns a view of an argument, or writes to one. */
  aliases: boolean;
  text: string;
}

function parameterOf(text: string): Parameter {
  const [, whole, name, standard] = /^(\S+) (\w+)(=.*)?$/.exec(text)!;
  const [, element, list, length, optional] = /^(\w+\??)(\[(\d*)\])?(\?)?$/.exec(whole)!;
  const base = element.replace('SymInt', 'int');
  return {
    type: list ? `${base}[]` : base.replace('?', ''),
    length: length ? Number(length) : undefined,
    optional: list ? optional !== undefined : element.endsWith('?'),
    name,
    hasDefault: standard !== undefined,
  };
}

/** Splits a text at the commas that are not inside brackets. */
function split(text: string): string[] {
  const parts: string[] = [];
  let [depth, part] = [0, ''];
  for (const letter of text) {
    if ('[('.includes(letter)) depth += 1;
    if ('])'.includes(letter)) depth -= 1;
    if (letter === ',' && depth === 0) {
      parts.push(part.trim());
      part = '';
    } else part += letter;
  }
  return [...parts, part.trim()].filter((one) => one !== '');
}

/** Reads `name.overload(Tensor self, *, Scalar alpha=1) -> Tensor`. */
export function parseSchema(text: string): [name: string, Schema] {
  const plain = text.replace(/\([a-z]!?( -> \*)?\)/g, ''); // Tensor(a!)
  const [, name, inside] = /^([\w.]+)\((.*)\) -> /.exec(plain)!;
  const parameters = split(inside)
    .filter((part) => part !== '*')
    .map(parameterOf);
  return [name, { parameters, aliases: plain !== text, text }];
}

const FOLDER = fileURLToPath(new URL('../fixtures/aten', import.meta.url));

/** All schemas of each version, by the operator's name and overload. */
export const VERSIONS: ReadonlyMap<string, ReadonlyMap<string, Schema>> = new Map(
  readdirSync(FOLDER).map((file) => [
    file.replace(/\.txt$/, ''),
    new Map(readFileSync(`${FOLDER}/${file}`, 'utf8').trim().split('\n').map(parseSchema)),
  ]),
);

/** An operator's schema in the oldest version that has it. */
export function schemaOf(name: string): Schema | undefined {
  return [...VERSIONS.values()].map((schemas) => schemas.get(name)).find((schema) => schema);
}

/** Operators that the engine looks up before it calls them, because not every version has them. */
export const MAY_LACK =
  /^(mm\.dtype|_fused_adamw_|_fused_sdp_choice|_scaled_dot_product_(flash|efficient)_attention(_backward)?)$/;

const IS: Record<string, (value: unknown) => boolean> = {
  Tensor: (value) => Number.isInteger(value) && (value as number) >= 0,
  int: Number.isInteger,
  ScalarType: Number.isInteger,
  Layout: Number.isInteger,
  MemoryFormat: Number.isInteger,
  float: (value) => typeof value === 'number',
  Scalar: (value) => typeof value === 'number' || typeof value === 'boolean',
  bool: (value) => typeof value === 'boolean',
  str: (value) => typeof value === 'string',
  Device: (value) => typeof value === 'string',
};

/** An argument that is present, but whose value is not known before the code runs. */
export const UNKNOWN = Symbol('unknown');

function fits(value: unknown, { type, length, optional, hasDefault }: Parameter): boolean {
  if (value === UNKNOWN) return true;
  if (value === undefined) return optional || hasDefault;
  // The bridge passes an undefined tensor for null, as PyTorch's own gradients do for an absent mask.
  if (value === null) return optional || type === 'Tensor';
  const [element] = type.split(/\?*\[/);
  if (!type.endsWith('[]')) return IS[element]!(value);
  if (!Array.isArray(value)) return length !== undefined && IS[element]!(value);
  if (length !== undefined && length !== value.length && element === 'bool') return false;
  return value.every((one) => one === UNKNOWN || (one === null && /\?\[/.test(type)) || IS[element]!(one));
}

/** Why a call does not match the schema of some version, or undefined. `more`: whether unknown arguments follow. */
export function misfit(name: string, args: readonly unknown[], more = false): string | undefined {
  const known = [...VERSIONS].filter(([, schemas]) => schemas.has(name));
  if (known.length === 0)
    return `no version has ${name}: mistyped, or its schema is still to be collected (test/aten/collect.js)`;
  for (const [version, schemas] of VERSIONS) {
    const schema = schemas.get(name);
    if (!schema) {
      if (MAY_LACK.test(name)) continue;
      return `PyTorch ${version} has no ${name}`;
    }
    const { parameters, text } = schema;
    const inWords = `in PyTorch ${version}, ${text}`;
    if (args.length > parameters.length)
      return `${name} is given ${args.length} arguments, but takes ${parameters.length} ${inWords}`;
    for (const [i, parameter] of parameters.entries()) {
      if (i >= args.length && more) break;
      if (!fits(args[i], parameter))
        return `${name} is given ${JSON.stringify(args[i])} as ${parameter.name} ${inWords}`;
    }
  }
  return undefined;
}
