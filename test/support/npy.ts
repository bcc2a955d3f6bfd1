import { bytesOf } from '../../src/files/bytes.js';
import { encodeNpyHeader, type NpyArray } from '../../src/formats/npy.js';

/** A whole .npy file. */
export const encodeNpy = ({ dtype, shape, data }: NpyArray): Uint8Array =>
  Buffer.concat([encodeNpyHeader(dtype, shape), bytesOf(data)]);
