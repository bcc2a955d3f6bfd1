import { z } from 'zod';

type JsonSchema = { properties?: Record<string, JsonSchema>; items?: JsonSchema; anyOf?: JsonSchema[] };

/** The keys that the schema knows in the section at `path`. */
function knownKeys(schema: z.ZodType, path: readonly PropertyKey[]): string[] {
  let node = z.toJSONSchema(schema, { io: 'input' }) as JsonSchema;
  const section = (n: JsonSchema) => n.anyOf?.find((option) => option.properties) ?? n;
  for (const key of path) node = section(node.properties?.[String(key)] ?? node.items ?? {});
  return Object.keys(node.properties ?? {});
}

/** Levenshtein's distance: how many letters must be inserted, deleted or replaced. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++)
      next.push(Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1)));
    row = next;
  }
  return row[b.length];
}

/** The nearest known key if it is near, else all of them. */
function describeUnknown(key: string, known: readonly string[]): string {
  const [nearest] = known
    .map((name) => ({ name, distance: editDistance(key, name) }))
    .sort((a, b) => a.distance - b.distance);
  const close = nearest !== undefined && nearest.distance <= Math.max(1, key.length / 3);
  return close
    ? `unknown key; did you mean ${nearest.name}?`
    : `unknown key; known keys: ${known.join(', ')}`;
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

/** One of a schema's complaints: the key path it is about, and what is wrong there. */
export function explain(
  schema: z.ZodType,
  issue: z.core.$ZodIssue,
): { path: PropertyKey[]; message: string } {
  if (issue.code !== 'unrecognized_keys') return { path: issue.path, message: describe(issue) };
  const [key] = issue.keys;
  return { path: [...issue.path, key], message: describeUnknown(key, knownKeys(schema, issue.path)) };
}
