import { drawCodesOp, drawStepOp } from '../../ops/drawing.js';
import { ScalarType } from '../backend.js';
import type { TensorId } from '../bridge.js';
import { onCpu } from './products.js';
import { implement, type Kernel, OWN, PYTORCH } from './register.js';

/** Zeroes all probabilities (B, N) but the top_k largest, and of those all but the largest that reach the share top_p. */
function truncated({ use, drop, backend }: Kernel, p: TensorId, top_k: number, top_p: number): TensorId {
  const [sorted, order] = (backend.call('sort.stable', p, true, -1, true) as TensorId[]).map(drop);
  const [batch, entries] = backend.native.shape(p);
  const kept =
    top_k > 0 && top_k < entries
      ? use('constant_pad_nd', use('narrow', sorted, 1, 0, top_k), [0, entries - top_k], 0)
      : sorted;
  const before = use('sub.Tensor', use('cumsum', kept, 1), kept);
  const limit = use('mul.Scalar', use('sum.dim_IntList', kept, [1], true), top_p);
  const cut = use('masked_fill.Scalar', kept, use('ge.Tensor', before, limit), 0);
  const none = use('zeros', [batch, entries], ScalarType.float32, null, backend.device);
  return use('scatter.src', none, 1, order, cut);
}

export function registerDrawing(): void {
  implement(drawCodesOp, PYTORCH, ({ logits, uniforms }, { temperature, top_k, top_p }, kernel) => {
    const { id, use, out } = kernel;
    const best = use('argmax', id(logits), -1, true);
    if (temperature === 0) return out('int32', 'to.dtype', use('squeeze.dim', best, 1), ScalarType.int32);
    let p = use('_softmax', use('div.Scalar', id(logits), temperature), -1, false);
    const entries = logits.shape[1];
    if ((top_k > 0 && top_k < entries) || top_p < 1) p = truncated(kernel, p, top_k, top_p);
    const sums = use('cumsum', p, 1);
    const whole = use('narrow', sums, 1, entries - 1, 1);
    const wanted = use('mul.Tensor', whole, use('unsqueeze', id(uniforms), 1));
    const found = use('searchsorted.Tensor', sums, wanted, false, true);
    const rounded = use('ge.Scalar', found, entries); // rounding left a remainder, or the sum is NaN
    const codes = use('where.self', rounded, best, found);
    return out('int32', 'to.dtype', use('squeeze.dim', codes, 1), ScalarType.int32);
  });
  implement(drawStepOp, OWN, (inputs, { temperature, top_k, top_p }, kernel) => {
    const { id, either, out, backend } = kernel;
    const { logits, uniforms, scales, position, ids, codes } = inputs;
    const state = [id(uniforms), scales ? id(scales) : null, ...[position, ids, codes].map(id)];
    const given = onCpu(kernel) ? id(logits) : either(logits);
    backend.call('alitok::draw_step', given, ...state, temperature, top_k, top_p);
    return out('float32', 'slice.Tensor', id(uniforms), 0, 0, 0);
  });
}
