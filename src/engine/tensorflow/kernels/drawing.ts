import { type DrawOptions, drawCodesOp, drawStepOp } from '../../ops/drawing.js';
import { flag, int, listOf, Type, type } from '../backend.js';
import type { Handle } from '../binding.js';
import { implement, type Kernel } from './register.js';

const KEEP = [flag('keep_dims', true)];
const AS_INT32 = [type('output_type', Type.int32)];
const TO_INT32 = [type('DstT', Type.int32)];
const TO_FLOAT64 = [type('DstT', Type.float64)];
const EXCLUSIVE = [flag('exclusive', true)];

/** A tensor's numbers in float64. */
const widen = ({ use }: Kernel, x: Handle): Handle => use('Cast', [x], TO_FLOAT64);

/** A float64 number, from two of float32: tfjs-node's binding sends no others. */
function wide(kernel: Kernel, x: number): Handle {
  const high = Math.fround(x);
  return kernel.use(
    'AddV2',
    [high, x - high].map((part) => widen(kernel, kernel.changing(part))),
  );
}

/** The first index of the largest number of each row (B, N), where NaN counts as the largest: (B) int32. */
function argMax({ use, ints }: Kernel, x: Handle): Handle {
  const last = ints(-1);
  const invalid = use('IsNan', [x]);
  const firstInvalid = use('ArgMax', [use('Cast', [invalid], TO_INT32), last], AS_INT32);
  const largest = use('ArgMax', [x, last], AS_INT32);
  return use('SelectV2', [use('Any', [invalid, last]), firstInvalid, largest]);
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
  const limit = use('Mul', [use('Sum', [largest, ints(-1)], KEEP), wide(kernel, top_p)]);
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
  const { use, ints, reshape } = kernel;
  const best = argMax(kernel, logits);
  const { temperature, top_k, top_p } = options;
  if (temperature === 0) return best;
  const [batch, entries] = logits.shape;
  const largest = use('Max', [logits, ints(-1)], KEEP);
  const exponents = use('Sub', [widen(kernel, logits), widen(kernel, largest)]);
  let weights = use('Exp', [use('Div', [exponents, wide(kernel, temperature)])]);
  if ((top_k > 0 && top_k < entries) || top_p < 1) weights = truncate(kernel, weights, options);
  const sums = use('Cumsum', [weights, ints(-1)]);
  const total = use('Slice', [sums, ints([0, entries - 1]), ints([batch, 1])]);
  const limit = use('Mul', [total, reshape(widen(kernel, uniforms), [batch, 1])]);
  const passed = use('Cast', [use('LessEqual', [sums, limit])], TO_INT32);
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
