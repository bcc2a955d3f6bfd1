import { writeFileSync } from 'node:fs';
import { expect } from 'vitest';
import { AlitokError } from '../../src/errors.js';
import { Random } from '../../src/random.js';

/** Numbers that sizes and offsets break on, as bytes. */
const LIMITS = [0, 1, 0x7f, 0x80, 0xff];

/** A damaged copy of a file, the same for the same seed and index: a few changes that files suffer or attackers make. */
export function mutate(file: Uint8Array, seed: number, index: number): Uint8Array {
  const random = Random.of(seed, `mutation ${index}`);
  const below = (n: number) => random.integer(n);
  let bytes = new Uint8Array(file);
  const changes: (() => void)[] = [
    () => {
      bytes[below(bytes.length)] ^= 1 << below(8);
    },
    () => {
      bytes[below(bytes.length)] = below(256);
    },
    () => {
      const at = below(bytes.length);
      bytes.fill(LIMITS[below(LIMITS.length)], at, at + 2 ** below(4));
    },
    () => {
      bytes = bytes.slice(0, below(bytes.length));
    },
    () => {
      const at = below(bytes.length);
      bytes.copyWithin(below(bytes.length), at, at + below(64));
    },
    () => {
      const at = below(bytes.length);
      const cut = at + below(64);
      bytes = Uint8Array.of(...bytes.subarray(0, at), ...bytes.subarray(cut));
    },
    () => {
      const at = below(bytes.length);
      bytes = Uint8Array.of(
        ...bytes.subarray(0, at),
        ...bytes.subarray(at, at + below(64)),
        ...bytes.subarray(at),
      );
    },
  ];
  for (let count = 1 + below(3); count > 0 && bytes.length > 0; count--) changes[below(changes.length)]();
  return bytes;
}

/**
 * Reads `count` damaged copies of each file, one after the other, written to `path`. Every outcome must be a result or
 * one of the errors a user can cause, in one line. Gives how many were read and how many refused.
 */
export async function fuzz(
  files: readonly Uint8Array[],
  {
    path,
    count,
    seed,
    read,
  }: { path: string; count: number; seed: number; read: (path: string) => Promise<void> },
): Promise<{ read: number; refused: number }> {
  const outcome = { read: 0, refused: 0 };
  for (const [which, file] of files.entries())
    for (let index = 0; index < count; index++) {
      const bytes = mutate(file, seed + which, index);
      writeFileSync(path, bytes);
      try {
        await read(path);
        outcome.read++;
      } catch (error) {
        if (!(error instanceof AlitokError))
          throw new Error(`mutation ${index} of file ${which}, seed ${seed}`, { cause: error });
        expect(error.message, `mutation ${index} of file ${which}`).not.toMatch(/\n/);
        outcome.refused++;
      }
    }
  return outcome;
}
