import { createWriteStream } from 'node:fs';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { ZipFile } from 'yazl';

/** A float32 tensor, row-major. */
export interface Values {
  shape: readonly number[];
  data: Float32Array;
}

/** The opcodes of a pickle, as latin1. */
const int = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value);
  return `J${bytes.toString('latin1')}`;
};
const text = (value: string) => {
  const bytes = Buffer.from(value);
  return `X${int(bytes.length).slice(1)}${bytes.toString('latin1')}`;
};
const tuple = (...parts: string[]) => `(${parts.join('')}t`;
const dictionary = (items: readonly (readonly [string, string])[]) =>
  `}(${items.map(([key, value]) => text(key) + value).join('')}u`;

/**
 * Writes what `torch.save` makes of a training script's dictionary: state dicts by name, with tensors beside them.
 */
export async function writeTrainingFile(
  path: string,
  parts: Record<string, Record<string, Values> | Values>,
): Promise<void> {
  const storages: Float32Array[] = [];
  const tensor = ({ shape, data }: Values) => {
    const key = String(storages.push(data) - 1);
    const storage = tuple(
      text('storage'),
      'ctorch\nFloatStorage\n',
      text(key),
      text('cpu'),
      int(data.length),
    );
    const strides = shape.map((_, axis) => shape.slice(axis + 1).reduce((a, b) => a * b, 1));
    const sizes = [shape, strides].map((numbers) => tuple(...numbers.map(int)));
    return `ctorch._utils\n_rebuild_tensor_v2\n${tuple(`${storage}Q`, int(0), ...sizes, '\x89', '}')}R`;
  };
  const isTensor = (part: object): part is Values => 'data' in part && ArrayBuffer.isView(part.data);
  const items = Object.entries(parts).map(([key, part]) => {
    if (isTensor(part)) return [key, tensor(part)] as const;
    return [key, dictionary(Object.entries(part).map(([name, values]) => [name, tensor(values)]))] as const;
  });
  const zip = new ZipFile();
  zip.addBuffer(Buffer.from(`\x80\x02${dictionary(items)}.`, 'latin1'), 'archive/data.pkl', {
    compress: false,
  });
  for (const [key, data] of storages.entries())
    zip.addBuffer(Buffer.from(data.buffer, data.byteOffset, data.byteLength), `archive/data/${key}`, {
      compress: false,
    });
  zip.end();
  await pipeline(zip.outputStream as Readable, createWriteStream(path));
}
