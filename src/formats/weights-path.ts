import { existsSync } from 'node:fs';

/**
 * Of `FILE#KEY`, which names the weights that a training file holds under a key, the file and the key; of any other path
 * the path. A file whose own name has a # is itself.
 */
export function parseWeightsPath(path: string): { file: string; key?: string } {
  const at = path.lastIndexOf('#');
  if (at <= 0 || existsSync(path) || !existsSync(path.slice(0, at))) return { file: path };
  return { file: path.slice(0, at), key: path.slice(at + 1) };
}
