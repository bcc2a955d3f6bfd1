import { fileChecksum } from '../files/bytes.js';
import { parseWeightsPath } from '../formats/tensor-file.js';
import { modelChecksum } from '../run/layout.js';
import type { InitialWeights } from '../run/record.js';

/**
 * Identifies trained weights among the inputs of a run, and the file that maps classes to theirs.
 * @throws CheckpointError if there are none at `path`
 */
export async function initialInput(path: string, classMap?: string): Promise<Record<string, string>> {
  const { key } = parseWeightsPath(path);
  const under = key === undefined ? '' : ` under ${key}`;
  return {
    'the initial weights': `SHA-256 ${await modelChecksum(path)}${under}`,
    ...(classMap !== undefined && { 'the map of classes': `SHA-256 ${await fileChecksum(classMap)}` }),
  };
}

/** Most names that the log lists; all are in run.json. */
const LISTED = 3;

function names(all: readonly string[]): string {
  const more = all.length > LISTED ? `, … (${all.length} in all)` : '';
  return `${all.slice(0, LISTED).join(', ')}${more}`;
}

/** What was taken of trained weights, and what was not, in one line. */
export function describeInitial({ path, sha256, taken, changed, redrawn }: InitialWeights): string {
  const changes = Object.entries(changed).map(([name, how]) => `${name}: ${how}`);
  const parts = [
    `${taken} parameters taken`,
    ...changes.slice(0, LISTED),
    ...(changes.length > LISTED ? [`${changes.length - LISTED} more changed`] : []),
    ...(redrawn.length > 0 ? [`drawn anew: ${names(redrawn)}`] : []),
  ];
  return `initial weights ${path} (SHA-256 ${sha256.slice(0, 16)}…): ${parts.join('; ')}`;
}
