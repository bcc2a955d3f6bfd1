import { DataError } from '../errors.js';
import type { TypedArray, TypedArrayConstructor } from '../files/bytes.js';
import { sizeOf } from '../shapes.js';

// The format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. Written here because rows
// of arrays larger than memory are read in place.

/** The array type of each NumPy type code (kind and bytes per element). */
const ARRAYS = {
  f4: Float32Array,
  f8: Float64Array,
  i2: Int16Array,
  i4: Int32Array,
  i8: BigInt64Array,
  u1: Uint8Array,
  u2: Uint16Array,
  b1: Uint8Array,
} satisfies Record<string, TypedArrayConstructor>;

export type NpyDtype = keyof typeof ARRAYS;

export interface NpyArray {
  readonly dtype: NpyDtype;
  /** Empty for a scalar. */
  readonly shape: readonly number[];
  /** The elements in row-major order. */
  readonly data: TypedArray;
}

/** Texts (`<U…`, `|S…`), as NumPy stores lists of names. */
export interface NpyStrings {
  readonly dtype: 'string';
  readonly shape: readonly number[];
  readonly data: string[];
}

export interface NpyHeader {
  readonly dtype: NpyDtype | 'string';
  readonly shape: readonly number[];
  readonly fortranOrder: boolean;
  readonly bytesPerElement: number;
  /** UTF-32 (`U`) or bytes (`S`); only with dtype 'string'. */
  readonly encoding?: 'U' | 'S';
  /** Bytes before the first element. */
  readonly dataStart: number;
}

const MAGIC = '\x93NUMPY';

/** Enough bytes for the header of any array of numbers or texts that NumPy writes. */
export const MAX_NPY_HEADER_BYTES = 65536;

/** The array type of a dtype. */
export function npyArray(dtype: NpyDtype): TypedArrayConstructor {
  return ARRAYS[dtype];
}

/**
 * Reads the header of a .npy file, version 1, 2 or 3.
 * @param bytes the beginning of the file
 * @param name the file, for errors
 * @throws DataError for anything but little-endian numbers, booleans and texts
 */
export function parseNpyHeader(bytes: Uint8Array, name: string): NpyHeader {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const damaged = () => new DataError(`${name} is not a valid .npy array; write it again with numpy.save`);
  if (buffer.length < 12 || buffer.toString('latin1', 0, 6) !== MAGIC) throw damaged();
  const version = buffer[6];
  if (version < 1 || version > 3) throw damaged();
  const textStart = version === 1 ? 10 : 12;
  const dataStart = textStart + (version === 1 ? buffer.readUInt16LE(8) : buffer.readUInt32LE(8));
  if (dataStart > buffer.length) throw damaged();
  const text = buffer.toString('utf8', textStart, dataStart);

  const descr = /'descr':\s*'([^']*)'/.exec(text)?.[1];
  const order = /'fortran_order':\s*(True|False)/.exec(text)?.[1];
  const dimensions = /'shape':\s*\(([\d\s,]*)\)/.exec(text)?.[1];
  if (descr === undefined && /'descr':\s*\[/.test(text)) {
    throw new DataError(`${name} is a structured array; save its fields as arrays of their own`);
  }
  if (descr === undefined || order === undefined || dimensions === undefined) throw damaged();
  if (descr.includes('O')) {
    throw new DataError(`${name} is an object array (pickled Python); save it as an array of numbers`);
  }
  const shape = dimensions.split(',').flatMap((d) => (d.trim() === '' ? [] : [Number(d)]));
  if (!Number.isSafeInteger(sizeOf(shape))) throw damaged();
  const common = { shape, fortranOrder: order === 'True' && shape.length > 1, dataStart };

  const [, encoding, width] = /^[<|]([US])(\d+)$/.exec(descr) ?? [];
  if (encoding === 'U' || encoding === 'S') {
    const bytesPerElement = Number(width) * (encoding === 'U' ? 4 : 1);
    return { ...common, dtype: 'string', encoding, bytesPerElement };
  }
  const dtype = /^[<|=]/.test(descr) ? descr.slice(1) : descr;
  if (!Object.hasOwn(ARRAYS, dtype)) {
    const supported = Object.keys(ARRAYS).join(', ');
    throw new DataError(`${name} has the NumPy type ${descr}; save it as little-endian ${supported}`);
  }
  const bytesPerElement = ARRAYS[dtype as NpyDtype].BYTES_PER_ELEMENT;
  return { ...common, dtype: dtype as NpyDtype, bytesPerElement };
}

/**
 * Decodes a whole .npy file. Fortran order is converted to row-major order.
 * @param name the file, for errors
 * @throws DataError if it is truncated or of an unsupported type
 */
export function decodeNpy(bytes: Uint8Array, name: string): NpyArray | NpyStrings {
  const header = parseNpyHeader(bytes, name);
  const { dtype, shape, fortranOrder, bytesPerElement, dataStart } = header;
  const size = sizeOf(shape);
  if (bytes.length !== dataStart + size * bytesPerElement) {
    const expected = dataStart + size * bytesPerElement;
    throw new DataError(`${name} should have ${expected} bytes and has ${bytes.length}; write it again`);
  }
  if (dtype === 'string') {
    const texts = Array.from({ length: size }, (_, i) => {
      const start = dataStart + i * bytesPerElement;
      return decodeText(bytes.subarray(start, start + bytesPerElement), header.encoding!);
    });
    return { dtype, shape, data: fortranOrder ? rowMajorOrder(shape).map((i) => texts[i]) : texts };
  }
  // A copy, because the elements may not be aligned in `bytes`.
  const data = new ARRAYS[dtype](new Uint8Array(bytes.subarray(dataStart)).buffer);
  if (!fortranOrder) return { dtype, shape, data };
  const sorted = new ARRAYS[dtype](new ArrayBuffer(data.byteLength));
  rowMajorOrder(shape).forEach((from, to) => {
    sorted[to] = data[from];
  });
  return { dtype, shape, data: sorted };
}

function decodeText(bytes: Uint8Array, encoding: 'U' | 'S'): string {
  if (encoding === 'S') return Buffer.from(bytes).toString('utf8').replace(/\0+$/, '');
  const points = new Uint32Array(new Uint8Array(bytes).buffer);
  let length = points.length;
  while (length > 0 && points[length - 1] === 0) length--;
  // Invalid code points become the replacement character, as in other decoders.
  const valid = (point: number) => (point > 0x10ffff ? 0xfffd : point);
  return String.fromCodePoint(...points.subarray(0, length).map(valid));
}

/** For each element in row-major order, its index in Fortran (column-major) order. */
function rowMajorOrder(shape: readonly number[]): number[] {
  const strides = shape.map((_, axis) => sizeOf(shape.slice(0, axis)));
  return Array.from({ length: sizeOf(shape) }, (_, i) => {
    let place = 0;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      place += (i % shape[axis]) * strides[axis];
      i = Math.floor(i / shape[axis]);
    }
    return place;
  });
}

/** The header of a row-major .npy file, version 1, as NumPy writes it. */
export function encodeNpyHeader(dtype: NpyDtype, shape: readonly number[]): Uint8Array {
  const order = ARRAYS[dtype].BYTES_PER_ELEMENT === 1 ? '|' : '<';
  const dimensions = shape.length === 1 ? `${shape[0]},` : shape.join(', ');
  const text = `{'descr': '${order}${dtype}', 'fortran_order': False, 'shape': (${dimensions}), }`;
  // The data starts at a multiple of 64; the header ends in a line feed.
  const size = Math.ceil((10 + text.length + 1) / 64) * 64;
  const bytes = Buffer.alloc(size, ' ');
  bytes.write(`${MAGIC}\x01\x00`, 'latin1');
  bytes.writeUInt16LE(size - 10, 8);
  bytes.write(text, 10, 'latin1');
  bytes[size - 1] = 0x0a;
  return bytes;
}
