import type { TensorInfo } from '@tensorflow/tfjs';
import { EngineError } from '../../../errors.js';
import { type AdamWAttributes, adamWLists, type DrawOptions } from '../../ops/index.js';
import { ScalarType } from '../backend.js';
import type { TensorId } from '../bridge.js';
import { fusedAttention, fusedAttentionGrad, hasFused } from './attention-cuda.js';
import { type Kernel, register, sizeOf } from './register.js';

/** (…, d) → (rows, d), a view. */
function rowsOf({ id, use }: Kernel, x: TensorInfo): TensorId {
  return x.shape.length === 2 ? id(x) : use('reshape', id(x), [-1, x.shape.at(-1)!]);
}

/** Whether our own CPU kernels (native/kernels.cc) take part; elsewhere ATen operators are composed. */
const ours = ({ backend }: Kernel) => backend.device === 'cpu';

/** Whether products are made of bfloat16 numbers; what they are made from and what comes out stays float32. */
const inHalf = ({ backend }: Kernel) => backend.precision === 'bf16';
/** x as layers multiply it. */
const inPrecision = (kernel: Kernel, x: TensorId) => (inHalf(kernel) ? half(kernel, x) : x);
const half = ({ use }: Kernel, x: TensorId) => use('to.dtype', x, ScalarType.bfloat16);

/** Up to so many rows, a product's time is what reading the weights takes. */
const FEW_ROWS = 32;
/** Our kernels of few rows work on so many numbers at a time. */
const LANES = 16;

function registerLinear(): void {
  register('alitok.Linear', ({ x, weight, bias }, _, kernel) => {
    const { id, use, out } = kernel;
    const offset = bias ? id(bias) : null;
    const width = weight.shape[1];
    if (inHalf(kernel)) {
      const [xHalf, weightHalf] = [x, weight].map((tensor) => half(kernel, id(tensor)));
      const y = use('linear', xHalf, weightHalf, offset === null ? null : half(kernel, offset));
      return out('float32', 'to.dtype', y, ScalarType.float32);
    }
    if (!ours(kernel)) return out('float32', 'linear', id(x), id(weight), offset);
    if (sizeOf(x.shape) > FEW_ROWS * width || width % LANES > 0)
      return out('float32', 'alitok::linear', id(x), id(weight), offset);
    return out('float32', 'alitok::linear_few', id(x), id(weight), null, offset);
  });
  register('alitok.LinearGrad', ({ dy, x, weight }, _, kernel) => {
    const { id, use, out } = kernel;
    if (ours(kernel) && !inHalf(kernel))
      return [
        out('float32', 'alitok::product', id(dy), id(weight), false, false),
        out('float32', 'alitok::product', id(dy), id(x), true, false),
      ];
    const [dyHalf, xHalf, weightHalf] = [dy, x, weight].map((tensor) =>
      inHalf(kernel) ? half(kernel, id(tensor)) : id(tensor),
    );
    const dx = use('mm', dyHalf, weightHalf);
    const dweight = use('mm', use('t', dyHalf), xHalf);
    return [dx, dweight].map((gradient) => out('float32', 'to.dtype', gradient, ScalarType.float32));
  });
  register<{ int8: boolean }>('alitok.PackWeight', ({ weight }, { int8 }, kernel) => {
    const { id, out, backend } = kernel;
    if (!ours(kernel))
      throw new EngineError(`weights in fewer bits are for --device cpu, not ${backend.device}`);
    if (!int8) return [out('float32', 'to.dtype', id(weight), ScalarType.bfloat16)];
    const [packed, scale] = backend.call('alitok::pack_int8', id(weight));
    return [backend.wrap(packed, 'int32'), backend.wrap(scale, 'float32')];
  });
  register('alitok.PackedLinear', ({ x, weight, scale, bias }, _, { id, out }) =>
    out('float32', 'alitok::linear_few', id(x), id(weight), scale ? id(scale) : null, bias ? id(bias) : null),
  );
  register('alitok.Gelu', ({ x }, _, { id, out }) => out('float32', 'gelu', id(x)));
  register('alitok.GeluGrad', ({ dy, x }, _, { id, out }) => out('float32', 'gelu_backward', id(dy), id(x)));
  register('alitok.SwiGLU', ({ gate, value }, _, kernel) => {
    const { id, use, out } = kernel;
    if (ours(kernel)) return out('float32', 'alitok::swiglu', id(gate), id(value));
    return out('float32', 'mul.Tensor', use('silu', id(gate)), id(value));
  });
  register('alitok.SwiGLUGrad', ({ dy, gate, value }, _, kernel) => {
    const { id, use, out, outs } = kernel;
    if (ours(kernel)) return outs('alitok::swiglu_grad', id(dy), id(gate), id(value));
    return [
      out('float32', 'silu_backward', use('mul.Tensor', id(dy), id(value)), id(gate)),
      out('float32', 'mul.Tensor', id(dy), use('silu', id(gate))),
    ];
  });
}

function registerNormalization(): void {
  type Epsilon = { epsilon: number };
  register<Epsilon>('alitok.LayerNorm', ({ x, weight, bias }, { epsilon }, { id, out }) =>
    out('float32', 'layer_norm', id(x), weight.shape, id(weight), id(bias), epsilon),
  );
  register<Epsilon>('alitok.LayerNormGrad', ({ dy, x, weight }, { epsilon }, { id, backend, drop }) => {
    const [y, mean, rstd] = backend.call('native_layer_norm', id(x), weight.shape, null, null, epsilon);
    drop(y);
    const scale = id(weight);
    const statistics = [drop(mean), drop(rstd)];
    const gradients = backend.call(
      'native_layer_norm_backward',
      id(dy),
      id(x),
      weight.shape,
      ...statistics,
      scale,
      scale, // only whether there is a bias counts
      [true, true, true],
    ) as TensorId[];
    return gradients.map((gradient) => backend.wrap(gradient, 'float32'));
  });

  /** x·rstd and rstd = 1/√(mean(x²) + ε) over the last dimension. */
  const rms = ({ use }: Kernel, x: TensorId, epsilon: number) => {
    const meanSquare = use('mean.dim', use('square', x), [-1], true);
    const rstd = use('rsqrt', use('add.Scalar', meanSquare, epsilon));
    return { normalized: use('mul.Tensor', x, rstd), rstd };
  };
  register<Epsilon>('alitok.RMSNorm', ({ x, weight }, { epsilon }, kernel) => {
    const { id, out } = kernel;
    if (ours(kernel)) return out('float32', 'alitok::rms_norm', id(x), id(weight), epsilon);
    return out('float32', 'mul.Tensor', rms(kernel, id(x), epsilon).normalized, id(weight));
  });
  register<Epsilon>('alitok.RMSNormGrad', ({ dy, x, weight }, { epsilon }, kernel) => {
    const { id, use, out, outs } = kernel;
    if (ours(kernel)) return outs('alitok::rms_norm_grad', id(dy), id(x), id(weight), epsilon);
    const [xRows, dyRows] = [rowsOf(kernel, x), rowsOf(kernel, dy)];
    const { normalized, rstd } = rms(kernel, xRows, epsilon);
    const g = use('mul.Tensor', dyRows, id(weight));
    const along = use('mean.dim', use('mul.Tensor', g, normalized), [-1], true);
    const across = use('sub.Tensor', g, use('mul.Tensor', normalized, along));
    const dx = use('mul.Tensor', across, rstd);
    return [
      out('float32', 'reshape', dx, x.shape),
      out('float32', 'sum.dim_IntList', use('mul.Tensor', dyRows, normalized), [0]),
    ];
  });

  type Groups = Epsilon & { groups: number };
  const channelsFirst = ({ id, use }: Kernel, x: TensorInfo) =>
    use('contiguous', use('permute', id(x), [0, 3, 1, 2]));
  const sizes = ([batch, height, width, channels]: readonly number[]) => [batch, channels, height * width];
  register<Groups>('alitok.GroupNorm', ({ x, weight, bias }, { groups, epsilon }, kernel) => {
    const { id, drop, out, backend } = kernel;
    const input = channelsFirst(kernel, x);
    const results = backend.call(
      'native_group_norm',
      input,
      id(weight),
      id(bias),
      ...sizes(x.shape),
      groups,
      epsilon,
    );
    for (const result of results) drop(result);
    return out('float32', 'permute', results[0], [0, 2, 3, 1]);
  });
  register<Groups>('alitok.GroupNormGrad', ({ dy, x, weight }, { groups, epsilon }, kernel) => {
    const { id, drop, out, backend } = kernel;
    const [input, gradient] = [channelsFirst(kernel, x), channelsFirst(kernel, dy)];
    const forward = backend.call(
      'native_group_norm',
      input,
      id(weight),
      null,
      ...sizes(x.shape),
      groups,
      epsilon,
    );
    const [, mean, rstd] = (forward as TensorId[]).map(drop);
    const [dx, dweight, dbias] = backend.call(
      'native_group_norm_backward',
      gradient,
      input,
      mean,
      rstd,
      id(weight),
      ...sizes(x.shape),
      groups,
      [true, true, true],
    );
    return [
      out('float32', 'permute', drop(dx), [0, 2, 3, 1]),
      backend.wrap(dweight, 'float32'),
      backend.wrap(dbias, 'float32'),
    ];
  });
}

function registerAttention(): void {
  register<{ inverse: boolean }>('alitok.Rotary', ({ x, cos, sin }, { inverse }, kernel) => {
    const { id, use, out } = kernel;
    if (ours(kernel)) return out('float32', 'alitok::rotary', id(x), id(cos), id(sin), inverse);
    // Pairs of channels as complex numbers, turned by one product.
    const [batch, tokens, heads, width] = x.shape;
    const pairs = use(
      'view_as_complex',
      use('reshape', use('contiguous', id(x)), [batch, tokens, heads, width / 2, 2]),
    );
    const angle = use('complex', id(cos), inverse ? use('neg', id(sin)) : id(sin));
    const turned = use('mul.Tensor', pairs, use('reshape', angle, [1, tokens, 1, width / 2]));
    return out('float32', 'reshape', use('view_as_real', turned), x.shape);
  });

  type Attributes = { causal: boolean; keyLength: number; dropout: number; seed: number };
  const headsFirst = ({ use }: Kernel, x: TensorId) => use('permute', x, [0, 2, 1, 3]);

  /** softmax(q·kᵀ/√D), for q, k (B, H, T, D). */
  const probabilities = (
    { use, backend }: Kernel,
    q: TensorId,
    k: TensorId,
    shape: number[],
    causal: boolean,
  ) => {
    const [queries, keys, width] = shape;
    const scaled = use('mul.Scalar', q, 1 / Math.sqrt(width));
    let scores = use('matmul', scaled, use('transpose.int', k, -2, -1));
    if (causal && queries > 1) {
      const all = use('ones', [queries, keys], ScalarType.bool, null, backend.device);
      const hidden = use('triu', all, keys - queries + 1);
      scores = use('masked_fill.Scalar', scores, hidden, Number.NEGATIVE_INFINITY);
    }
    return use('_softmax', scores, -1, false);
  };
  const used = (kernel: Kernel, x: TensorInfo, length: number) => {
    const { id, use } = kernel;
    return headsFirst(kernel, length === x.shape[1] ? id(x) : use('narrow', id(x), 1, 0, length));
  };
  const mask = (kernel: Kernel, shape: number[], { dropout, seed }: Attributes) =>
    dropoutFactors(kernel, sizeOf(shape), dropout, seed, shape);

  register<Attributes>('alitok.Attention', ({ q, k, v }, attributes, kernel) => {
    const { id, use, out } = kernel;
    const { causal, keyLength, dropout } = attributes;
    const [batch, queries, heads, width] = q.shape;
    if (queries === 1 && dropout === 0 && ours(kernel))
      return out('float32', 'alitok::attention_step', id(q), id(k), id(v), keyLength);
    if (ours(kernel) && width % LANES === 0 && keyLength === k.shape[1])
      return out('float32', 'alitok::attention', id(q), id(k), id(v), causal, dropout, attributes.seed);
    if (hasFused(kernel, queries === keyLength, causal && queries > 1, dropout)) {
      const inputs = [
        headsFirst(kernel, id(q)),
        used(kernel, k, keyLength),
        used(kernel, v, keyLength),
      ] as const;
      const [qIn, kIn, vIn] = inputs.map((x) => inPrecision(kernel, x));
      const y = fusedAttention(kernel, [qIn, kIn, vIn], causal && queries > 1);
      return out('float32', 'to.dtype', use('permute', y, [0, 2, 1, 3]), ScalarType.float32);
    }
    let p = probabilities(
      kernel,
      headsFirst(kernel, id(q)),
      used(kernel, k, keyLength),
      [queries, keyLength, width],
      causal,
    );
    if (dropout > 0) p = use('mul.Tensor', p, mask(kernel, [batch, heads, queries, keyLength], attributes));
    return out('float32', 'permute', use('matmul', p, used(kernel, v, keyLength)), [0, 2, 1, 3]);
  });
  register<Attributes>('alitok.AttentionGrad', (inputs, attributes, kernel) => {
    const { use, out, outs } = kernel;
    const names = ['dy', 'q', 'k', 'v'];
    const [batch, queries, heads, width] = inputs.q.shape;
    if (ours(kernel) && width % LANES === 0) {
      const { causal, dropout, seed } = attributes;
      return outs(
        'alitok::attention_grad',
        ...names.map((name) => kernel.id(inputs[name])),
        causal,
        dropout,
        seed,
      );
    }
    const [dy, q, k, v] = names.map((name) => headsFirst(kernel, kernel.id(inputs[name])));
    if (hasFused(kernel, queries === inputs.k.shape[1], attributes.causal, attributes.dropout)) {
      const [dyIn, qIn, kIn, vIn] = [dy, q, k, v].map((x) => inPrecision(kernel, x));
      const gradients = fusedAttentionGrad(kernel, dyIn, [qIn, kIn, vIn], attributes.causal);
      return gradients.map((x) =>
        out('float32', 'to.dtype', use('permute', x, [0, 2, 1, 3]), ScalarType.float32),
      );
    }
    const keys = inputs.k.shape[1];
    const p = probabilities(kernel, q, k, [queries, keys, width], attributes.causal);
    let dropped = p;
    let dp = use('matmul', dy, use('transpose.int', v, -2, -1));
    if (attributes.dropout > 0) {
      const factors = mask(kernel, [batch, heads, queries, keys], attributes);
      dropped = use('mul.Tensor', p, factors);
      dp = use('mul.Tensor', dp, factors);
    }
    const dv = use('matmul', use('transpose.int', dropped, -2, -1), dy);
    const ds = use(
      'mul.Scalar',
      use('_softmax_backward_data', dp, p, -1, ScalarType.float32),
      1 / Math.sqrt(width),
    );
    const dq = use('matmul', ds, k);
    const dk = use('matmul', use('transpose.int', ds, -2, -1), q);
    return [dq, dk, dv].map((x) => out('float32', 'permute', x, [0, 2, 1, 3]));
  });

  register<{ position: number }>('alitok.CacheWrite', ({ cache, update }, { position }, { id, use, out }) => {
    use('copy_', use('narrow', id(cache), 1, position, update.shape[1]), id(update));
    return out('float32', 'slice.Tensor', id(update), 0, 0, 0);
  });
}

/** 1/(1−rate) where an element is kept and 0 where it is dropped, by the hash that all engines share. */
function dropoutFactors(
  { use, backend }: Kernel,
  size: number,
  rate: number,
  seed: number,
  shape: number[],
): TensorId {
  const low32 = (x: TensorId) => use('bitwise_and.Scalar', x, 0xffffffff);
  // 32-bit products in 64-bit integers: by the factor's halves, so that nothing overflows.
  const times = (x: TensorId, factor: number) => {
    const high = low32(
      use('bitwise_left_shift.Tensor_Scalar', low32(use('mul.Scalar', x, factor >>> 16)), 16),
    );
    return low32(use('add.Tensor', high, use('mul.Scalar', x, factor & 0xffff)));
  };
  const mixed = (x: TensorId, shift: number) =>
    use('bitwise_xor.Tensor', x, use('bitwise_right_shift.Tensor_Scalar', x, shift));
  const index = use('arange', size, ScalarType.int64, null, backend.device);
  let h = low32(use('add.Scalar', index, Math.imul(seed, 0x9e3779b1) >>> 0));
  h = times(mixed(h, 16), 0x85ebca6b);
  h = times(mixed(h, 13), 0xc2b2ae35);
  h = mixed(h, 16);
  const kept = use('ge.Scalar', h, Math.floor(rate * 2 ** 32));
  const factors = use('mul.Scalar', use('to.dtype', kept, ScalarType.float32), 1 / (1 - rate));
  return use('reshape', factors, shape);
}

function registerLookup(): void {
  register('alitok.Embedding', ({ weight, indices }, _, { id, out }) =>
    out('float32', 'embedding', id(weight), id(indices)),
  );
  register<{ rows: number }>('alitok.EmbeddingGrad', ({ dy, indices }, { rows }, { id, use, out }) => {
    const wanted = use('to.dtype', id(indices), ScalarType.int64);
    return out('float32', 'embedding_dense_backward', id(dy), wanted, rows, -1, false);
  });
  register('alitok.CrossEntropy', ({ logits, targets }, _, { id, use, out }) => {
    const wanted = use('unsqueeze', use('to.dtype', id(targets), ScalarType.int64), -1);
    const chosen = use('gather', use('_log_softmax', id(logits), -1, false), 1, wanted);
    return out('float32', 'neg', use('squeeze.dim', chosen, -1));
  });
  register('alitok.CrossEntropyGrad', ({ dy, logits, targets }, _, { id, use, out }) => {
    const p = use('_softmax', id(logits), -1, false);
    const wanted = use('unsqueeze', use('to.dtype', id(targets), ScalarType.int64), -1);
    const minusOne = use('full_like', use('to.dtype', wanted, ScalarType.float32), -1);
    const difference = use('scatter_add', p, 1, wanted, minusOne);
    return out('float32', 'mul.Tensor', difference, use('unsqueeze', id(dy), -1));
  });
  register('alitok.NearestCode', ({ z, codebook }, _, { id, use, out }) => {
    // ‖e‖² − 2z·e: what all distances of a row have in common is left out.
    const norms = use('sum.dim_IntList', use('square', id(codebook)), [-1]);
    const transposed = use('transpose.int', id(codebook), 0, 1);
    const distances = use('addmm', norms, id(z), transposed, 1, -2);
    return out('int32', 'to.dtype', use('argmin', distances, -1), ScalarType.int32);
  });
}

/** Sets probabilities (B, N) to zero outside the top_k largest, and outside the largest that reach the share top_p of those. */
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

function registerDrawing(): void {
  register<DrawOptions>('alitok.DrawCodes', ({ logits, uniforms }, { temperature, top_k, top_p }, kernel) => {
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
    const rounded = use('ge.Scalar', found, entries); // rounding left a remainder
    const codes = use('where.self', rounded, best, found);
    return out('int32', 'to.dtype', use('squeeze.dim', codes, 1), ScalarType.int32);
  });
}

function registerTraining(): void {
  register<{ rate: number; seed: number }>('alitok.Dropout', ({ x }, { rate, seed }, kernel) => {
    if (ours(kernel)) return kernel.out('float32', 'alitok::dropout', kernel.id(x), rate, seed);
    const factors = dropoutFactors(kernel, sizeOf(x.shape), rate, seed, x.shape);
    return kernel.out('float32', 'mul.Tensor', kernel.id(x), factors);
  });
  register<AdamWAttributes>('alitok.AdamW', (inputs, attributes, kernel) => {
    const [parameters, gradients, ms, vs] = adamWLists(inputs);
    const { lr, beta1, beta2, epsilon, weightDecay, step, gradientScale } = attributes;
    const { id, use, out, backend } = kernel;
    const fused = !ours(kernel) && backend.has('_fused_adamw_');
    if (!ours(kernel) && !fused) return adamWOneByOne(kernel, [parameters, gradients, ms, vs], attributes);
    const root = 1 / Math.sqrt(1 - beta2 ** step);
    const rate = lr / (1 - beta1 ** step);
    const own = (x: TensorInfo) => (backend.mayReuse(x) ? backend.alias(x) : out('float32', 'clone', id(x)));
    const lists = [parameters, ms, vs].map((tensors) => tensors.map(own));
    const [p, m, v] = lists.map((tensors) => tensors.map(id));
    if (fused) {
      const scalar = (value: number) => use('full', [], value, ScalarType.float32, null, backend.device);
      const steps = parameters.map(() => scalar(step));
      const numbers = [lr, beta1, beta2, weightDecay, epsilon, false, false];
      backend.call(
        '_fused_adamw_',
        p,
        gradients.map(id),
        m,
        v,
        [],
        steps,
        ...numbers,
        scalar(1 / gradientScale),
      );
    } else {
      const factors = [gradientScale, beta1, beta2, epsilon, 1 - lr * weightDecay, rate, root];
      backend.call('alitok::adamw', p, gradients.map(id), m, v, factors);
    }
    return parameters.flatMap((_, i) => lists.map((list) => list[i]));
  });
  register('alitok.SumOfSquares', (inputs, _, kernel) => {
    const tensors = Object.values(inputs).map(kernel.id);
    if (ours(kernel)) return kernel.out('float32', 'alitok::sum_of_squares', tensors);
    const sums = tensors.map((x) => kernel.use('sum', kernel.use('square', x)));
    return kernel.out('float32', 'sum', kernel.use('stack', sums));
  });
}

function adamWOneByOne(
  { id, use, backend }: Kernel,
  [parameters, gradients, ms, vs]: TensorInfo[][],
  { lr, beta1, beta2, epsilon, weightDecay, step, gradientScale }: AdamWAttributes,
): TensorInfo[] {
  const root = 1 / Math.sqrt(1 - beta2 ** step);
  const rate = lr / (1 - beta1 ** step);
  return parameters.flatMap((parameter, i) => {
    const g = gradientScale === 1 ? id(gradients[i]) : use('mul.Scalar', id(gradients[i]), gradientScale);
    const mNext = backend.call('lerp.Scalar', id(ms[i]), g, 1 - beta1);
    const vNext = backend.call('addcmul', use('mul.Scalar', id(vs[i]), beta2), g, g, 1 - beta2);
    const denominator = use('add.Scalar', use('mul.Scalar', use('sqrt', vNext), root), epsilon);
    const decayed = use('mul.Scalar', id(parameter), 1 - lr * weightDecay);
    const next = backend.call('addcdiv', decayed, mNext, denominator, -rate);
    return [next, mNext, vNext].map((x) => backend.wrap(x, 'float32', parameter.shape));
  });
}

/** The project's op vocabulary (src/engine/ops) in ATen operators. */
export function registerVocabulary(): void {
  registerLinear();
  registerNormalization();
  registerAttention();
  registerLookup();
  registerDrawing();
  registerTraining();
}
