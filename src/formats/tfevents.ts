import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import crc32c from 'crc-32/crc32c.js';

// The format: TFRecords of tensorflow.Event messages (event.proto, summary.proto). Written here because
// tfjs-node, which has a writer, needs a native library that does not run everywhere.

/** Counts of values in buckets. Bucket i ends at `limits[i]` and starts where the one before ends. */
export interface Histogram {
  min: number;
  max: number;
  count: number;
  sum: number;
  sumOfSquares: number;
  limits: readonly number[];
  counts: readonly number[];
}

/** One value of a summary; TensorBoard shows it under `tag`. */
export type SummaryValue = { tag: string } & (
  | { scalar: number }
  | { png: Uint8Array; width: number; height: number }
  | { histogram: Histogram }
);

/** The content of an event: the file's version, the start of a session at the event's step, or values of that step. */
export type EventContent = { version: true } | { start: true } | { values: readonly SummaryValue[] };

const VERSION = 'brain.Event:2';
/** SessionLog.SessionStatus.START: readers discard earlier values of this step and later ones. */
const START = 1;
const RGB = 3;

const varint = (writer: BinaryWriter, field: number, value: number) =>
  writer.tag(field, WireType.Varint).int64(value);
const double = (writer: BinaryWriter, field: number, value: number) =>
  writer.tag(field, WireType.Bit64).double(value);
const bytes = (writer: BinaryWriter, field: number, value: Uint8Array) =>
  writer.tag(field, WireType.LengthDelimited).bytes(value);
const text = (writer: BinaryWriter, field: number, value: string) =>
  writer.tag(field, WireType.LengthDelimited).string(value);

function message(writer: BinaryWriter, field: number, write: (writer: BinaryWriter) => void): void {
  writer.tag(field, WireType.LengthDelimited).fork();
  write(writer);
  writer.join();
}

function doubles(writer: BinaryWriter, field: number, values: readonly number[]): void {
  message(writer, field, (packed) => {
    for (const value of values) packed.double(value);
  });
}

/** tensorflow.Summary.Value (summary.proto). */
function writeValue(writer: BinaryWriter, value: SummaryValue): void {
  text(writer, 1, value.tag);
  if ('scalar' in value) writer.tag(2, WireType.Bit32).float(value.scalar);
  else if ('png' in value)
    message(writer, 4, (image) => {
      varint(image, 1, value.height);
      varint(image, 2, value.width);
      varint(image, 3, RGB);
      bytes(image, 4, value.png);
    });
  else {
    const { min, max, count, sum, sumOfSquares, limits, counts } = value.histogram;
    message(writer, 5, (histogram) => {
      [min, max, count, sum, sumOfSquares].forEach((number, i) => {
        double(histogram, i + 1, number);
      });
      doubles(histogram, 6, limits);
      doubles(histogram, 7, counts);
    });
  }
}

/** tensorflow.Event (event.proto). */
function encodeEvent(time: number, step: number, content: EventContent): Uint8Array {
  const writer = new BinaryWriter();
  double(writer, 1, time);
  varint(writer, 2, step);
  if ('version' in content) text(writer, 3, VERSION);
  else if ('start' in content) message(writer, 7, (log) => varint(log, 1, START));
  else
    message(writer, 5, (summary) => {
      for (const value of content.values) message(summary, 1, (one) => writeValue(one, value));
    });
  return writer.finish();
}

/** CRC-32C as TFRecord stores it: masked, because the CRC of data that contains CRCs is problematic. */
function maskedCrc(data: Uint8Array): number {
  const crc = crc32c.buf(data) >>> 0;
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

/** A TFRecord: length (uint64), its checksum, the data, their checksum, all little-endian. */
function frame(data: Uint8Array): Buffer {
  const record = Buffer.alloc(data.length + 16);
  record.writeBigUInt64LE(BigInt(data.length), 0);
  record.writeUInt32LE(maskedCrc(record.subarray(0, 8)), 8);
  record.set(data, 12);
  record.writeUInt32LE(maskedCrc(data), 12 + data.length);
  return record;
}

/** One event as a record to append to a TensorBoard event file. `time` is in seconds since 1970. */
export function eventRecord(time: number, step: number, content: EventContent): Buffer {
  return frame(encodeEvent(time, step, content));
}
