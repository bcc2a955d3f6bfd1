import type { FileHandle } from 'node:fs/promises';
import { BinaryReader, WireType } from '@bufbuild/protobuf/wire';
import { CheckpointError } from '../errors.js';
import { readFully, type TypedArray } from '../files/bytes.js';
import { sizeOf } from '../shapes.js';
import { openRegularFile, readFloat32, type TensorFile, type TensorInfo } from './tensor-file.js';

// The format: one GraphDef protocol buffer (tensorflow/core/framework: graph.proto, node_def.proto, attr_value.proto,
// tensor.proto, tensor_shape.proto). Its float constants are the tensors here.

/** Field numbers. */
const GRAPH = { node: 1 };
const NODE = { name: 1, op: 2, attribute: 5 };
const ENTRY = { key: 1, value: 2 };
const VALUE = { tensor: 8 };
const TENSOR = { dtype: 1, shape: 2, content: 4, floats: 5 };
const SHAPE = { dimension: 2 };
const DIMENSION = { size: 1 };

const DT_FLOAT = 1;
const FLOAT_BYTES = 4;

/** Far more than networks need: Inception's largest constant takes 8 MB, and its graph has 1000 nodes. */
const MAX_NODE_BYTES = 2 ** 26;
const MAX_NODES = 20_000;
/** Limit of protocol buffers for one message. */
const MAX_GRAPH_BYTES = 2 ** 31;
/** The file is read in pieces of at least this many bytes. */
const PIECE = 2 ** 16;
/** Bytes of a node's tag and length. */
const MAX_PREFIX = 16;

interface Constant extends TensorInfo {
  /** Where its elements are in the file. */
  readonly position: number;
  /** Number of elements in the file; the last one is repeated to fill the shape. */
  readonly stored: number;
}

function damaged(path: string, what: string, options?: ErrorOptions): CheckpointError {
  return new CheckpointError(`${path} is not a valid TensorFlow graph: ${what}; fetch it again`, options);
}

/** Whether a file may be a graph, by its first bytes. A safetensors file has its JSON at byte 8. */
export function startsAsGraph(start: Buffer): boolean {
  const node = (GRAPH.node << 3) | WireType.LengthDelimited;
  return start[0] === node && !(start[7] === 0 && start[8] === 0x7b);
}

/** The end of the message that begins here, which must be within the message that ends at `end`. */
function partOf(reader: BinaryReader, end: number): number {
  const length = reader.uint32();
  if (reader.pos + length > end) throw new RangeError('a part is longer than the whole');
  return reader.pos + length;
}

/** Reads the fields of the message that ends at `end`; those without a reader in `take` are skipped. */
function eachField(
  reader: BinaryReader,
  end: number,
  take: Record<number, ((wire: WireType) => void) | undefined>,
): void {
  while (reader.pos < end) {
    const [field, wire] = reader.tag();
    if (take[field]) take[field](wire);
    else reader.skip(wire, field);
  }
  if (reader.pos !== end) throw new RangeError('a part is shorter than its content');
}

/** A float constant of a node; its position is relative to the reader's bytes. */
function readTensor(reader: BinaryReader, end: number): Constant | undefined {
  let dtype = 0;
  const shape: number[] = [];
  let elements: { position: number; stored: number } | undefined;
  const span = (from: number, to: number) => {
    if ((to - from) % FLOAT_BYTES !== 0 || elements) throw new RangeError('its elements are not floats');
    elements = { position: from, stored: (to - from) / FLOAT_BYTES };
    reader.pos = to;
  };
  eachField(reader, end, {
    [TENSOR.dtype]: () => {
      dtype = reader.int32();
    },
    [TENSOR.shape]: () =>
      eachField(reader, partOf(reader, end), {
        [SHAPE.dimension]: () => {
          let size = 0; // protocol buffers omit zeros
          eachField(reader, partOf(reader, end), {
            [DIMENSION.size]: () => {
              size = Number(reader.int64());
            },
          });
          shape.push(size);
        },
      }),
    [TENSOR.content]: () => {
      const to = partOf(reader, end);
      if (dtype === DT_FLOAT) span(reader.pos, to);
      reader.pos = to;
    },
    [TENSOR.floats]: (wire) => {
      const to = wire === WireType.Bit32 ? reader.pos + FLOAT_BYTES : partOf(reader, end);
      if (to > end) throw new RangeError('a part is longer than the whole');
      span(reader.pos, to);
    },
  });
  if (dtype !== DT_FLOAT || !elements) return undefined;
  const size = sizeOf(shape);
  if (!shape.every((n) => n >= 0) || !(size * FLOAT_BYTES <= MAX_NODE_BYTES))
    throw new RangeError(`a shape of [${shape}]`);
  const { position, stored } = elements;
  if (stored > size || (stored === 0 && size > 0)) throw new RangeError(`${stored} elements of [${shape}]`);
  return { dtype: 'F32', shape, position, stored };
}

/** The name of a node and its constant, if it is one. */
function readNode(bytes: Uint8Array): { name: string; constant?: Constant } {
  const reader = new BinaryReader(bytes);
  const end = bytes.length;
  let [name, op] = ['', ''];
  let constant: Constant | undefined;
  eachField(reader, end, {
    [NODE.name]: () => {
      name = reader.string(true);
    },
    [NODE.op]: () => {
      op = reader.string(true);
    },
    [NODE.attribute]: () => {
      const entryEnd = partOf(reader, end);
      let key = '';
      eachField(reader, entryEnd, {
        [ENTRY.key]: () => {
          key = reader.string(true);
        },
        [ENTRY.value]: () =>
          eachField(reader, partOf(reader, entryEnd), {
            [VALUE.tensor]: () => {
              const found = readTensor(reader, partOf(reader, entryEnd));
              if (key === 'value') constant = found;
            },
          }),
      });
    },
  });
  return { name, constant: op === 'Const' ? constant : undefined };
}

/** An open graph. Only the names, shapes and positions of its constants are in memory. */
class GraphDef implements TensorFile {
  readonly metadata = {};

  constructor(
    readonly path: string,
    readonly tensors: ReadonlyMap<string, Constant>,
    private readonly handle: FileHandle,
  ) {}

  async read(name: string): Promise<TypedArray> {
    const constant = this.tensors.get(name);
    if (!constant) throw new CheckpointError(`${this.path} has no tensor ${name}; is it the right file?`);
    const { shape, position, stored } = constant;
    const elements = new Float32Array(sizeOf(shape));
    const bytes = new Uint8Array(elements.buffer, 0, stored * FLOAT_BYTES);
    if (!(await readFully(this.handle, bytes, position))) throw damaged(this.path, 'it ends too early');
    return stored < elements.length ? elements.fill(elements[stored - 1], stored) : elements;
  }

  readFloat32(name: string): Promise<Float32Array> {
    return readFloat32(this, name);
  }

  close(): Promise<void> {
    return this.handle.close();
  }
}

/** Returns a function that gives bytes of the file, which is read in pieces. */
function pieces(handle: FileHandle, fileSize: number) {
  let [start, piece] = [0, new Uint8Array(0)];
  return async (position: number, length: number): Promise<Uint8Array> => {
    if (position < start || position + length > start + piece.length) {
      piece = new Uint8Array(Math.min(Math.max(length, PIECE), fileSize - position));
      start = position;
      if (!(await readFully(handle, piece, position))) throw new RangeError('it ends too early');
    }
    return piece.subarray(position - start, position - start + length);
  };
}

async function readConstants(handle: FileHandle, fileSize: number): Promise<Map<string, Constant>> {
  const constants = new Map<string, Constant>();
  const bytesAt = pieces(handle, fileSize);
  let parts = 0;
  for (let position = 0; position < fileSize; ) {
    if (++parts > MAX_NODES) throw new RangeError('it has more nodes than any network');
    const prefix = new BinaryReader(await bytesAt(position, Math.min(MAX_PREFIX, fileSize - position)));
    const [field, wire] = prefix.tag();
    if (wire !== WireType.LengthDelimited) {
      prefix.skip(wire, field); // the version
      position += prefix.pos;
      continue;
    }
    const length = prefix.uint32();
    const start = position + prefix.pos;
    if (start + length > fileSize) throw new RangeError('it ends too early');
    position = start + length;
    if (length > MAX_NODE_BYTES) throw new RangeError(`a node of ${length} bytes`);
    if (field !== GRAPH.node) continue;
    const { name, constant } = readNode(await bytesAt(start, length));
    if (!constant) continue;
    if (constants.has(name)) throw new RangeError(`there are two nodes ${name}`);
    constants.set(name, { ...constant, position: start + constant.position });
  }
  return constants;
}

/**
 * Opens a TensorFlow graph and finds its float constants by the names of their nodes, without reading them.
 * @throws CheckpointError if it is missing or not valid
 */
export async function openGraphDef(path: string): Promise<TensorFile> {
  const { handle, size } = await openRegularFile(path);
  try {
    if (size > MAX_GRAPH_BYTES) throw new RangeError('it is larger than any graph');
    return new GraphDef(path, await readConstants(handle, size), handle);
  } catch (error) {
    await handle.close();
    if (error instanceof CheckpointError) throw error;
    throw damaged(path, (error as Error).message.split('\n')[0], { cause: error });
  }
}
