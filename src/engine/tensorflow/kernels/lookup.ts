import { crossEntropyOp, embeddingOp, nearestCodeOp } from '../../ops/lookup.js';
import { rowsOf } from './normalization.js';
import { productByTransposed } from './products.js';
import { implement } from './register.js';
import { indexOf } from './selection.js';

/** Embeddings, cross-entropy and the nearest code. */
export function registerLookup(): void {
  implement(embeddingOp, ({ weight, indices }, _, { handle, use, ints, out }) =>
    out(use('GatherV2', [handle(weight), handle(indices), ints(0)])),
  );
  implement(embeddingOp.backward, ({ dy, indices }, { rows }, kernel) => {
    const { handle, use, ints, reshape, out } = kernel;
    const flat = reshape(handle(indices), [-1]);
    return out(use('UnsortedSegmentSum', [rowsOf(kernel, dy), flat, ints(rows)]));
  });

  // The operation returns the loss, and its gradient by the logits.
  implement(crossEntropyOp, ({ logits, targets }, _, { handle, uses, out }) => {
    const inputs = [handle(logits), handle(targets)];
    return out(uses('SparseSoftmaxCrossEntropyWithLogits', inputs, [], 2)[0]);
  });
  implement(crossEntropyOp.backward, ({ dy, logits, targets }, _, kernel) => {
    const { handle, uses, use, reshape, out } = kernel;
    const inputs = [handle(logits), handle(targets)];
    const [, gradient] = uses('SparseSoftmaxCrossEntropyWithLogits', inputs, [], 2);
    return out(use('Mul', [gradient, reshape(handle(dy), [-1, 1])]));
  });

  implement(nearestCodeOp, ({ z, codebook }, _, kernel) => {
    const { handle, use, last, ints, number, out } = kernel;
    // ‖e‖² − 2z·e: ‖z‖², which all distances of a row share, is left out.
    const norms = use('Sum', [use('Square', [handle(codebook)]), ints([-1])]);
    const products = productByTransposed(kernel, handle(z), handle(codebook));
    const distances = last('Sub', [norms, last('Mul', [products, number(2)])]);
    return out(indexOf('ArgMin', kernel, distances));
  });
}
