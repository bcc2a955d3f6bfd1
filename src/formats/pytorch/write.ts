import { Readable } from 'node:stream';
import { ZipFile } from 'yazl';
import { CheckpointError } from '../../errors.js';
import { writeAtomic } from '../../files/atomic.js';
import { bytesOf } from '../../files/bytes.js';
import { MARKED_ZIP } from '../../files/mark.js';
import { sizeOf } from '../../shapes.js';
import { bytesPerElement, type Dtype, type TensorData, type TensorInfo } from '../tensor-file.js';
import { STORAGE_CLASSES } from './values.js';
import { METADATA } from './zip-archive.js';

/** The folder in the zip, which may have any name. */
const ARCHIVE = 'archive';
/** Version of the zip format, which PyTorch reads since 1.6. */
const FORMAT_VERSION = '3\n';

/**
 * Writes a state dict as `torch.save` does, in the zip format, atomically. One tensor at a time is in memory. The same
 * tensors give the same bytes.
 * @throws OutputError if the file cannot be written; CheckpointError for a dtype that PyTorch lacks
 */
export async function writePytorch(
  path: string,
  tensors: readonly TensorData[],
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  const pickle = pickleStateDict(tensors);
  await writeAtomic(path, async (file) => {
    const zip = new ZipFile();
    const output = zip.outputStream as Readable;
    const fail = (error: Error) => output.destroy(error);
    zip.on('error', fail);
    const options = { compress: false, mtime: new Date(1980, 0, 1), forceDosTimestamp: true };
    const note = (name: string, content: Buffer) => zip.addBuffer(content, `${ARCHIVE}/${name}`, options);
    note('data.pkl', pickle);
    note('byteorder', Buffer.from('little'));
    if (Object.keys(metadata).length > 0) note(METADATA, Buffer.from(JSON.stringify(metadata)));
    tensors.forEach((tensor, i) => {
      const size = sizeOf(tensor.shape) * bytesPerElement(tensor.dtype);
      zip.addReadStreamLazy(`${ARCHIVE}/data/${i}`, { ...options, size }, (done) => {
        const stream = Readable.from(bytesOfTensor(tensor), { objectMode: false });
        stream.on('error', fail);
        output.once('close', () => stream.destroy());
        done(null, stream);
      });
    });
    note('version', Buffer.from(FORMAT_VERSION));
    zip.end(MARKED_ZIP);
    output.setMaxListeners(0); // one for each tensor
    for await (const chunk of output) await file.write(chunk);
  });
}

async function* bytesOfTensor({ name, shape, data }: TensorData): AsyncGenerator<Uint8Array> {
  const array = typeof data === 'function' ? await data() : data;
  if (array.length !== sizeOf(shape))
    throw new Error(`${name} has ${array.length} elements, not (${shape.join(', ')})`);
  yield bytesOf(array);
}

const INT32_MAX = 2 ** 31 - 1;

const GLOBAL = (module: string, name: string) => Buffer.from(`c${module}\n${name}\n`);
const ORDERED_DICT = Buffer.concat([GLOBAL('collections', 'OrderedDict'), Buffer.from(')R')]);
const TENSOR = GLOBAL('torch._utils', '_rebuild_tensor_v2');

function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(bytes.length);
  return Buffer.concat([Buffer.from('X'), length, bytes]);
}

function integer(value: number): Buffer {
  const bytes = Buffer.alloc(value <= INT32_MAX ? 5 : 10);
  if (value <= INT32_MAX) {
    bytes.write('J');
    bytes.writeInt32LE(value, 1);
  } else {
    bytes.write('\x8a\x08', 'latin1');
    bytes.writeBigInt64LE(BigInt(value), 2);
  }
  return bytes;
}

function tuple(parts: Buffer[]): Buffer {
  return Buffer.concat([Buffer.from('('), ...parts, Buffer.from('t')]);
}

function rowMajorStrides(shape: readonly number[]): number[] {
  return shape.map((_, axis) => sizeOf(shape.slice(axis + 1)));
}

/** PyTorch's storage class of a dtype. @throws CheckpointError for dtypes without one */
function storageClass(dtype: Dtype, name: string): Buffer {
  if (!Object.hasOwn(STORAGE_CLASSES, dtype))
    throw new CheckpointError(
      `${name} has dtype ${dtype}, which PyTorch files do not support; write safetensors`,
    );
  return GLOBAL('torch', STORAGE_CLASSES[dtype as keyof typeof STORAGE_CLASSES]);
}

/**
 * The pickle (protocol 2) of an OrderedDict of row-major tensors. Each has its own storage, whose key is its index.
 * @throws CheckpointError for a dtype that PyTorch lacks
 */
export function pickleStateDict(tensors: readonly (TensorInfo & { name: string })[]): Buffer {
  const items = tensors.map(({ name, dtype, shape }, i) => {
    const size = sizeOf(shape);
    const id = tuple([text('storage'), storageClass(dtype, name), text(`${i}`), text('cpu'), integer(size)]);
    const args = tuple([
      Buffer.concat([id, Buffer.from('Q')]),
      integer(0),
      tuple(shape.map(integer)),
      tuple(rowMajorStrides(shape).map(integer)),
      Buffer.from('\x89', 'latin1'), // requires no gradient
      ORDERED_DICT, // has no hooks
    ]);
    return Buffer.concat([text(name), TENSOR, args, Buffer.from('R')]);
  });
  return Buffer.concat([
    Buffer.from('\x80\x02', 'latin1'),
    ORDERED_DICT,
    Buffer.from('('),
    ...items,
    Buffer.from('u.'),
  ]);
}
