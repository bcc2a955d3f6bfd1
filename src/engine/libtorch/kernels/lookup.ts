import { crossEntropyOp, embeddingOp, nearestCodeOp } from '../../ops/lookup.js';
import { ScalarType } from '../backend.js';
import { implement, PYTORCH } from './register.js';

/** Embeddings, cross-entropy and the nearest code. */
export function registerLookup(): void {
  implement(embeddingOp, PYTORCH, ({ weight, indices }, _, { id, out }) =>
    out('float32', 'embedding', id(weight), id(indices)),
  );
  implement(embeddingOp.backward, PYTORCH, ({ dy, indices }, { rows }, { id, use, out }) => {
    const wanted = use('to.dtype', id(indices), ScalarType.int64);
    return out('float32', 'embedding_dense_backward', id(dy), wanted, rows, -1, false);
  });
  implement(crossEntropyOp, PYTORCH, ({ logits, targets }, _, { id, use, out }) => {
    const wanted = use('unsqueeze', use('to.dtype', id(targets), ScalarType.int64), -1);
    const chosen = use('gather', use('_log_softmax', id(logits), -1, false), 1, wanted);
    return out('float32', 'neg', use('squeeze.dim', chosen, -1));
  });
  implement(crossEntropyOp.backward, PYTORCH, ({ dy, logits, targets }, _, { id, use, out }) => {
    const p = use('_softmax', id(logits), -1, false);
    const wanted = use('unsqueeze', use('to.dtype', id(targets), ScalarType.int64), -1);
    const minusOne = use('full_like', use('to.dtype', wanted, ScalarType.float32), -1);
    const difference = use('scatter_add', p, 1, wanted, minusOne);
    return out('float32', 'mul.Tensor', difference, use('unsqueeze', id(dy), -1));
  });
  implement(nearestCodeOp, PYTORCH, ({ z, codebook }, _, { id, use, out }) => {
    // ‖e‖² − 2z·e: ‖z‖², which all distances of a row share, is left out.
    const norms = use('sum.dim_IntList', use('square', id(codebook)), [-1]);
    const transposed = use('transpose.int', id(codebook), 0, 1);
    const distances = use('addmm', norms, id(z), transposed, 1, -2);
    return out('int32', 'to.dtype', use('argmin', distances, -1), ScalarType.int32);
  });
}
