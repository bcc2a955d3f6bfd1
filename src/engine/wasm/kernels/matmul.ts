import * as tf from '@tensorflow/tfjs';
import { sizeOf } from '../../../shapes.js';
import type { WasmBackend } from '../backend.js';
import { isFloat, registerFor } from './register.js';

/** A matrix in memory: its address, and the strides of rows, columns and batches in elements. */
export interface Matrix {
  address: number;
  row: number;
  column: number;
  batch: number;
}

/** C (batches, m, n) = A·B, plus a bias for each column; with `accumulate` it is added to C. C is dense. */
export function matmul(
  { pool }: WasmBackend,
  [batches, m, n, k]: [number, number, number, number],
  a: Matrix,
  b: Matrix,
  c: number,
  { bias = 0, accumulate = false }: { bias?: number; accumulate?: boolean } = {},
): void {
  const scratch = pool.scratchFor(pool.ask('matmulScratch'));
  const sizes = [batches, m, n, k];
  const matrices = [a.address, a.row, a.column, a.batch, b.address, b.row, b.column, b.batch, c, n, m * n];
  pool.run('matmul', batches * m * n * k, ...sizes, ...matrices, bias, accumulate ? 1 : 0, scratch);
}

/** Dense rows × columns matrices, one after the other; `transposed` views them as columns × rows. */
export function dense(address: number, rows: number, columns: number, transposed = false): Matrix {
  const batch = rows * columns;
  return transposed
    ? { address, row: 1, column: columns, batch }
    : { address, row: columns, column: 1, batch };
}

interface MatMulAttributes {
  transposeA: boolean;
  transposeB: boolean;
}

function batchMatMul(
  { a, b }: Record<string, tf.TensorInfo>,
  { transposeA, transposeB }: MatMulAttributes,
  backend: WasmBackend,
): tf.TensorInfo {
  const [aRows, aColumns] = a.shape.slice(-2);
  const [bRows, bColumns] = b.shape.slice(-2);
  const [m, k] = transposeA ? [aColumns, aRows] : [aRows, aColumns];
  const [bk, n] = transposeB ? [bColumns, bRows] : [bRows, bColumns];
  tf.util.assert(
    k === bk,
    () => `matMul: inner dimensions ${k} and ${bk} of [${a.shape}] and [${b.shape}] differ`,
  );
  const batchShape = tf.broadcast_util.assertAndGetBroadcastShape(a.shape.slice(0, -2), b.shape.slice(0, -2));
  const [batches, aBatches, bBatches] = [batchShape, a.shape.slice(0, -2), b.shape.slice(0, -2)].map(sizeOf);
  const out = backend.output([...batchShape, m, n]);
  if (sizeOf(out.shape) === 0) return out;
  const left = dense(backend.address(a), aRows, aColumns, transposeA);
  const right = dense(backend.address(b), bRows, bColumns, transposeB);
  // One of the two may be shared by all batches; `simpleBatches` excludes other broadcasts.
  if (aBatches === 1) left.batch = 0;
  if (bBatches === 1) right.batch = 0;
  matmul(backend, [batches, m, n, k], left, right, backend.address(out));
  return out;
}

/** Whether both are floats, and their batch shapes are equal or one has a single matrix. */
function simpleBatches({ a, b }: Record<string, tf.TensorInfo>): boolean {
  const [aBatch, bBatch] = [a.shape.slice(0, -2), b.shape.slice(0, -2)];
  const single = (batch: number[]) => sizeOf(batch) === 1;
  return isFloat(a) && isFloat(b) && (aBatch.join() === bBatch.join() || single(aBatch) || single(bBatch));
}

export function registerMatmul(): void {
  registerFor<MatMulAttributes>('BatchMatMul', simpleBatches, batchMatMul);
}
