import { type DrawOptions, drawCodesOp, drawStepOp } from '../../ops/drawing.js';
import { flag, int, KEEP_DIMS, listOf, Type } from '../backend.js';
import type { Handle } from '../binding.js';
import { implement, type Kernel } from './register.js';
import { indexOf } from './selection.js';

const EXCLUSIVE = [flag('exclusive', true)];

/** A float64 number, from two of float32: tfjs-node's binding sends no others. */
function wide({ use, cast, changing }: Kernel, x: number): Handle {
  const high = Math.fround(x);
  return use('AddV2', [cast(changing(high), Type.float64), cast(changing(x - high), Type.float64)]);
}

/**
 * Zeroes all but the top_k largest of each row of weights (B, N), and of those all but the largest that reach the share top_p
 * of their sum.
 */
function truncate(kernel: Kernel, weights: Handle, { top_k, top_p }: DrawOptions): Handle {
  const { use, uses, ints, reshape } = kernel;
  const [batch, entries] = weights.shape;
  const count = top_k > 0 ? Math.min(top_k, entries) : entries;
  const [largest, indices] = uses('TopKV2', [weights, ints(count)], [], 2);
  const limit = use('Mul', [use('Sum', [largest, ints(-1)], KEEP_DIMS), wide(kernel, top_p)]);
  const before = use('Cumsum', [largest, ints(-1)], EXCLUSIVE);
  const kept = use('SelectV2', [use('Less', [before, limit]), largest, wide(kernel, 0)]);
  // Back to their places, counted over all rows.
  const rows = use('Mul', [use('Range', [ints(0), ints(batch), ints(1)]), ints(entries)]);
  const places = use('AddV2', [indices, reshape(rows, [batch, 1])]);
  const scattered = use('ScatterNd', [
    reshape(places, [batch * count, 1]),
    reshape(kept, [batch * count]),
    ints([batch * entries]),
  ]);
  return reshape(scattered, [batch, entries]);
}

/** `drawCodes` of logits (B, N) and uniforms (B): (B) int32. Sums are in float64, as in the composition. */
function draw(kernel: Kernel, logits: Handle, uniforms: Handle, options: DrawOptions): Handle {
  const { use, cast, ints, reshape } = kernel;
  const best = indexOf('ArgMax', kernel, logits);
  const { temperature, top_k, top_p } = options;
  if (temperature === 0) return best;
  const [batch, entries] = logits.shape;
  const largest = use('Max', [logits, ints(-1)], KEEP_DIMS);
  const exponents = use('Sub', [cast(logits, Type.float64), cast(largest, Type.float64)]);
  let weights = use('Exp', [use('Div', [exponents, wide(kernel, temperature)])]);
  if ((top_k > 0 && top_k < entries) || top_p < 1) weights = truncate(kernel, weights, options);
  const sums = use('Cumsum', [weights, ints(-1)]);
  const total = use('Slice', [sums, ints([0, entries - 1]), ints([batch, 1])]);
  const limit = use('Mul', [total, reshape(cast(uniforms, Type.float64), [batch, 1])]);
  const passed = cast(use('LessEqual', [sums, limit]), Type.int32);
  const index = use('Sum', [passed, ints(-1)]);
  // Rounding may leave a remainder after the last; and the weights of a row with NaN or +∞ have no sum.
  const valid = use('LogicalAnd', [
    use('Less', [index, ints(entries)]),
    use('IsFinite', [reshape(largest, [batch])]),
  ]);
  return use('SelectV2', [valid, index, best]);
}

/** Drawing codes, without numbers from the host. */
export function registerDrawing(): void {
  implement(drawCodesOp, ({ logits, uniforms }, options, kernel) =>
    kernel.out(draw(kernel, kernel.handle(logits), kernel.handle(uniforms), options)),
  );
  implement(drawStepOp, (inputs, options, kernel) => {
    const { handle, use, uses, ints, number, reshape, kept, tensorflow, out } = kernel;
    const [position, codes] = [handle(inputs.position), handle(inputs.codes)];
    const at = (table: Handle) => use('GatherV2', [table, position, ints(0)]);
    let logits = handle(inputs.logits);
    if (inputs.scales) {
      const [conditional, free] = uses('Split', [ints(0), logits], [int('num_split', 2)], 2);
      const difference = use('Sub', [conditional, free]);
      logits = use('AddV2', [free, use('Mul', [difference, reshape(at(handle(inputs.scales)), [1, 1])])]);
    }
    const [batch, steps] = codes.shape;
    const drawn = draw(kernel, logits, reshape(at(handle(inputs.uniforms)), [batch]), options);
    // Integers are replaced: TensorFlow keeps some on the host and computes with copies, so writing in place could be lost.
    const here = use('Equal', [use('Range', [ints(0), ints(steps), ints(1)]), position]);
    const column = reshape(drawn, [batch, 1]);
    tensorflow.replace(inputs.codes, kept(use('SelectV2', [here, column, codes])));
    const next = inputs.scales ? use('ConcatV2', [drawn, drawn, ints(0)], listOf(2, Type.int32)) : drawn;
    tensorflow.replace(inputs.ids, kept(next));
    tensorflow.replace(inputs.position, kept(use('AddV2', [position, ints([1])])));
    return out(use('Fill', [ints([0]), number(0)]));
  });
}
