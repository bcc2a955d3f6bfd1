import { z } from 'zod';
import { nearest } from '../suggest.js';

type JsonSchema = { properties?: Record<string, JsonSchema>; items?: JsonSchema; anyOf?: JsonSchema[] };

/** The keys of the section at `path`. */
function knownKeys(schema: z.ZodType, path: readonly PropertyKey[]): string[] {
  let node = z.toJSONSchema(schema, { io: 'input' }) as JsonSchema;
  const section = (n: JsonSchema) => n.anyOf?.find((option) => option.properties) ?? n;
  for (const key of path) node = section(node.properties?.[String(key)] ?? node.items ?? {});
  return Object.keys(node.properties ?? {});
}

/** Suggests the nearest known key, or lists all if none is near. */
function describeUnknown(key: string, known: readonly string[]): string {
  const close = nearest(key, known);
  return close ? `unknown key; did you mean ${close}?` : `unknown key; known keys: ${known.join(', ')}`;
}

function describe(issue: z.core.$ZodIssue): string {
  const message = issue.message
    .replace(/^(Invalid input|Invalid option|Too small|Too big|Invalid number): /, '')
    .replace(/, received .*$/, '')
    .replace('expected int', 'expected whole number')
    .replace('expected object', 'expected section')
    .replace('expected array', 'expected list');
  const { input } = issue;
  if (issue.code === 'custom') return message;
  if (input === undefined) return `is missing, ${message}`;
  return `${message}, got ${typeof input === 'object' && input !== null ? `a ${Array.isArray(input) ? 'list' : 'section'}` : JSON.stringify(input)}`;
}

/** Puts one of the schema's issues into words: the key path, and what is wrong there. */
export function explain(
  schema: z.ZodType,
  issue: z.core.$ZodIssue,
): { path: PropertyKey[]; message: string } {
  if (issue.code !== 'unrecognized_keys') return { path: issue.path, message: describe(issue) };
  const [key] = issue.keys;
  return { path: [...issue.path, key], message: describeUnknown(key, knownKeys(schema, issue.path)) };
}
