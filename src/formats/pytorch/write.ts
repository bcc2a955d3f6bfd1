import { Readable } from 'node:stream';
import { ZipFile } from 'yazl';
import { writeAtomic } from '../../files/atomic.js';
import { bytesOf, sizeOf } from '../../files/bytes.js';
import { MARKED_ZIP } from '../../files/mark.js';
import { bytesPerElement, type TensorData } from '../tensor-file.js';
import { pickleStateDict } from './pickle-state-dict.js';
import { METADATA } from './zip-archive.js';

/** The folder in the zip; PyTorch takes any. */
const ARCHIVE = 'archive';
/** Of the zip format's records; PyTorch since 1.6 reads it. */
const FORMAT_VERSION = '3\n';

/**
 * Writes a state dict as `torch.save` does, in the zip format: durable and whole, or not at all. The data of one
 * tensor at a time is asked for and held. The same tensors give the same bytes.
 * @throws OutputError where the file cannot be written; CheckpointError for a dtype that PyTorch lacks
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
