import { createHash } from 'node:crypto';
import type { Saved } from '../nn/parameters.js';

/** Identifies parameters by their names, shapes and values, after `begin`: 16 hexadecimal digits. */
export async function fingerprintOf(parameters: Iterable<Saved>, begin = ''): Promise<string> {
  const hash = createHash('sha256').update(begin);
  for (const p of parameters) {
    hash.update(`${p.name} ${p.shape.join()}\n`);
    hash.update(await p.read());
  }
  return hash.digest('hex').slice(0, 16);
}
