import type { TensorInfo } from '@tensorflow/tfjs';
import { sizeOf } from '../../../shapes.js';
import {
  type AttentionAttributes,
  attentionOp,
  cacheWriteOp,
  newCacheOp,
  normRotaryOp,
  rotaryOp,
} from '../../ops/attention.js';
import { composed } from '../../ops/define.js';
import { ScalarType } from '../backend.js';
import { LANES, type TensorId } from '../bridge.js';
import { fusedAttention, fusedAttentionGrad, fusedFor, type Triple } from './attention-cuda.js';
import { dropoutFactors } from './dropout.js';
import { asGiven, inHalf, inPrecision, onCpu, ours, outGiven, outProduct, ownCuda } from './products.js';
import { implement, type Kernel, OWN, PYTORCH } from './register.js';

/** Rotary embedding, attention and its cache. */
export function registerAttention(): void {
  implement(rotaryOp, OWN, ({ x, cos, sin }, { inverse }, kernel) => {
    const { id, use, out, backend } = kernel;
    if (ours(kernel)) {
      const y = backend.call('alitok::rotary', asGiven(kernel, x), id(cos), id(sin), inverse);
      return outGiven(kernel, x, y);
    }
    // Pairs of channels as complex numbers, rotated by one product.
    const [batch, tokens, heads, width] = x.shape;
    const pairs = use(
      'view_as_complex',
      use('reshape', use('contiguous', id(x)), [batch, tokens, heads, width / 2, 2]),
    );
    const angle = use('complex', id(cos), inverse ? use('neg', id(sin)) : id(sin));
    const turned = use('mul.Tensor', pairs, use('reshape', angle, [1, tokens, 1, width / 2]));
    return out('float32', 'reshape', use('view_as_real', turned), x.shape);
  });

  implement(normRotaryOp, { cpu: 'composition', cuda: 'own' }, (inputs, attributes, kernel) => {
    if (!ownCuda(kernel)) return composed(normRotaryOp, inputs, attributes);
    const { x, weight, cos, sin } = inputs;
    const given = [asGiven(kernel, x), ...[weight, cos, sin].map(kernel.id), attributes.epsilon];
    return outGiven(kernel, x, kernel.backend.call('alitok::norm_rotary', ...given));
  });
  implement(normRotaryOp.backward, { cpu: 'composition', cuda: 'own' }, (inputs, attributes, kernel) => {
    if (!ownCuda(kernel)) return composed(normRotaryOp.backward, inputs, attributes);
    const { dy, x, weight, cos, sin } = inputs;
    const given = [asGiven(kernel, dy), asGiven(kernel, x), ...[weight, cos, sin].map(kernel.id)];
    const [dx, dweight] = kernel.backend.call('alitok::norm_rotary_grad', ...given, attributes.epsilon);
    return [outGiven(kernel, x, dx), kernel.backend.wrap(dweight, 'float32')];
  });

  const headsFirst = ({ use }: Kernel, x: TensorId) => use('permute', x, [0, 2, 1, 3]);

  /** x (…, queries, keys) with `value` at every key that the query must not see, whatever was there before. */
  const hide = (
    { use, backend }: Kernel,
    x: TensorId,
    [queries, keys]: [number, number],
    causal: boolean,
    value: number,
  ) => {
    if (!causal || queries === 1) return x;
    const all = use('ones', [queries, keys], ScalarType.bool, null, backend.device);
    return use('masked_fill.Scalar', x, use('triu', all, keys - queries + 1), value);
  };

  /** softmax(q·kᵀ/√D), for q, k (B, H, T, D). */
  const probabilities = (kernel: Kernel, q: TensorId, k: TensorId, shape: number[], causal: boolean) => {
    const { use } = kernel;
    const [queries, keys, width] = shape;
    const scaled = use('mul.Scalar', q, 1 / Math.sqrt(width));
    let scores = use('matmul', scaled, use('transpose.int', k, -2, -1));
    scores = hide(kernel, scores, [queries, keys], causal, Number.NEGATIVE_INFINITY);
    return use('_softmax', scores, -1, false);
  };
  /** The first rows of a tensor, heads first. */
  const used = (kernel: Kernel, x: TensorId, shape: number[], length: number) =>
    headsFirst(kernel, length === shape[1] ? x : kernel.use('narrow', x, 1, 0, length));
  /**
   * The first rows of keys or values, heads first and padded with zeros to a multiple of 8: tensor cores run at a fraction of
   * their rate unless rows of scores begin at a multiple of 16 bytes.
   */
  const padded = (kernel: Kernel, x: TensorInfo, length: number) => {
    const whole = inPrecision(kernel, x);
    const rows = length === x.shape[1] ? whole : kernel.use('narrow', whole, 1, 0, length);
    return kernel.use('alitok::heads_first', rows, 8 * Math.ceil(length / 8));
  };
  /** x in float32; a cache on a CUDA device may be in bfloat16. */
  const full = ({ id, use }: Kernel, x: TensorInfo) => use('to.dtype', id(x), ScalarType.float32);
  const mask = (kernel: Kernel, shape: number[], { dropout, seed }: AttentionAttributes) =>
    dropoutFactors(kernel, sizeOf(shape), dropout, seed, shape);

  implement(attentionOp, OWN, ({ q, k, v }, attributes, kernel) => {
    const { id, use, out, backend } = kernel;
    const { causal, keyLength, dropout } = attributes;
    const [batch, queries, heads, width] = q.shape;
    if (queries === 1 && dropout === 0 && onCpu(kernel))
      return out('float32', 'alitok::attention_step', id(q), id(k), id(v), keyLength);
    if (onCpu(kernel) && width % LANES === 0 && keyLength === k.shape[1])
      return out('float32', 'alitok::attention', id(q), id(k), id(v), causal, dropout, attributes.seed);
    const inputs = () =>
      [q, k, v].map((x, i) =>
        used(kernel, inPrecision(kernel, x), x.shape, i === 0 ? queries : keyLength),
      ) as unknown as Triple;
    const hides = causal && queries > 1;
    const shape = { width, square: queries === keyLength, causal: hides, dropout };
    const fused = fusedFor(kernel, inputs, shape);
    if (fused) {
      const y = fusedAttention(fused, kernel, inputs(), hides);
      return outProduct(kernel, 'permute', y, [0, 2, 1, 3]);
    }
    if (ownCuda(kernel)) {
      const [keys, values] = [k, v].map((x) => padded(kernel, x, keyLength));
      const scores = use(
        'matmul',
        headsFirst(kernel, inPrecision(kernel, q)),
        use('transpose.int', keys, -2, -1),
      );
      const scale = 1 / Math.sqrt(width);
      backend.call('alitok::attention_weights', scores, keyLength, hides, scale, dropout, attributes.seed);
      return outProduct(kernel, 'permute', use('matmul', scores, values), [0, 2, 1, 3]);
    }
    const [keys, values] = [k, v].map((x) => used(kernel, full(kernel, x), x.shape, keyLength));
    let p = probabilities(kernel, headsFirst(kernel, id(q)), keys, [queries, keyLength, width], causal);
    if (dropout > 0) p = use('mul.Tensor', p, mask(kernel, [batch, heads, queries, keyLength], attributes));
    return out('float32', 'permute', use('matmul', p, values), [0, 2, 1, 3]);
  });
  implement(attentionOp.backward, OWN, (inputs, attributes, kernel) => {
    const { use, out, outs, backend } = kernel;
    const names = ['dy', 'q', 'k', 'v'] as const;
    const [batch, queries, heads, width] = inputs.q.shape;
    if (onCpu(kernel) && width % LANES === 0) {
      const { causal, dropout, seed } = attributes;
      return outs(
        'alitok::attention_grad',
        ...names.map((name) => kernel.id(inputs[name])),
        causal,
        dropout,
        seed,
      );
    }
    const half = (name: keyof typeof inputs) => headsFirst(kernel, inPrecision(kernel, inputs[name]));
    const triple = () => (['q', 'k', 'v'] as const).map(half) as unknown as Triple;
    const { causal, dropout } = attributes;
    const fused = fusedFor(kernel, triple, { width, square: queries === inputs.k.shape[1], causal, dropout });
    if (fused) {
      const gradients = fusedAttentionGrad(fused, kernel, half('dy'), triple(), causal);
      return gradients.map((x) => outProduct(kernel, 'permute', x, [0, 2, 1, 3]));
    }
    const keys = inputs.k.shape[1];
    if (ownCuda(kernel)) {
      const [k, v] = [inputs.k, inputs.v].map((x) => padded(kernel, x, keys));
      const [q, dy] = [half('q'), use('alitok::heads_first', inPrecision(kernel, inputs.dy), queries)];
      const scores = use('matmul', q, use('transpose.int', k, -2, -1));
      const ds = use('matmul', dy, use('transpose.int', v, -2, -1));
      const hides = causal && queries > 1;
      const scale = 1 / Math.sqrt(width);
      backend.call(
        'alitok::attention_weights_grad',
        scores,
        ds,
        keys,
        hides,
        scale,
        dropout,
        attributes.seed,
      );
      const byKeys = (x: TensorId, y: TensorId) =>
        use('narrow', use('matmul', use('transpose.int', x, -2, -1), y), 2, 0, keys);
      return [use('matmul', ds, k), byKeys(ds, q), byKeys(scores, dy)].map((x) =>
        outProduct(kernel, 'permute', x, [0, 2, 1, 3]),
      );
    }
    const [dy, q, k, v] = names.map((name) => headsFirst(kernel, full(kernel, inputs[name])));
    const p = probabilities(kernel, q, k, [queries, keys, width], attributes.causal);
    let dropped = p;
    let dp = use('matmul', dy, use('transpose.int', v, -2, -1));
    if (attributes.dropout > 0) {
      const factors = mask(kernel, [batch, heads, queries, keys], attributes);
      dropped = use('mul.Tensor', p, factors);
      dp = use('mul.Tensor', dp, factors);
    }
    const dv = use('matmul', use('transpose.int', dropped, -2, -1), dy);
    const through = use('_softmax_backward_data', dp, p, -1, ScalarType.float32);
    const ds = use('mul.Scalar', hide(kernel, through, [queries, keys], causal, 0), 1 / Math.sqrt(width));
    const dq = use('matmul', ds, k);
    const dk = use('matmul', use('transpose.int', ds, -2, -1), q);
    return [dq, dk, dv].map((x) => out('float32', 'permute', x, [0, 2, 1, 3]));
  });

  implement(newCacheOp, PYTORCH, (_, { shape }, kernel) => {
    // On the CPU attention is our own, which computes in float32 in every precision.
    const type = inHalf(kernel) && !onCpu(kernel) ? ScalarType.bfloat16 : ScalarType.float32;
    return kernel.out('float32', 'zeros', shape, type, null, kernel.backend.device);
  });
  implement(cacheWriteOp, PYTORCH, ({ cache, update }, { position }, kernel) => {
    const { id, either, use, outLike, backend } = kernel;
    use('copy_', use('narrow', id(cache), 1, position, update.shape[1]), either(update));
    backend.overwritten(cache);
    return outLike(update, 'slice.Tensor', either(update), 0, 0, 0);
  });
}
