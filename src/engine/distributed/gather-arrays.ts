import type { Group } from './group.js';

type Numbers = Uint8Array | Int32Array | Uint32Array | Float32Array | Float64Array;

const bytesOf = ({ buffer, byteOffset, byteLength }: Numbers) =>
  new Uint8Array(buffer, byteOffset, byteLength);

/**
 * Gathers arrays from all processes, by rank, under the same names and of the same types. Their lengths may differ.
 * A single process gets its own.
 */
export async function gatherArrays<T extends Record<string, Numbers>>(group: Group, arrays: T): Promise<T[]> {
  if (group.size === 1) return [arrays];
  const own = Object.entries(arrays);
  const lengths = Uint32Array.from(own, ([, { byteLength }]) => byteLength);
  // Not a Buffer, whose parts would share its memory.
  const message = new Uint8Array(Buffer.concat([lengths, ...own.map(([, array]) => array)].map(bytesOf)));
  return (await group.allGatherBytes(message)).map((bytes) => {
    let at = lengths.byteLength;
    const sizes = new Uint32Array(bytes.slice(0, at).buffer);
    const parts = own.map(([name, array], i) => {
      const part = bytes.slice(at, at + sizes[i]).buffer; // aligned
      at += sizes[i];
      return [name, new (array.constructor as new (buffer: ArrayBufferLike) => Numbers)(part)] as const;
    });
    return Object.fromEntries(parts) as T;
  });
}
