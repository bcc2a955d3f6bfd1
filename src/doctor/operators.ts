import * as tf from '@tensorflow/tfjs';
import { geluOp, swiGLUOp } from '../engine/ops/activation.js';
import { attentionOp, cacheWriteOp, newCacheOp, normRotaryOp, rotaryOp } from '../engine/ops/attention.js';
import type { AnyOperation } from '../engine/ops/define.js';
import { drawCodesOp, drawStepOp } from '../engine/ops/drawing.js';
import { dropoutOp } from '../engine/ops/dropout.js';
import { frozenConv2dOp, frozenDepthwiseConv2dOp, frozenLinearOp } from '../engine/ops/frozen.js';
import { generatorStepOp, joinLayersOp } from '../engine/ops/generator-step.js';
import * as ops from '../engine/ops/index.js';
import { linearOp, packedLinearOp, packWeightOp } from '../engine/ops/linear.js';
import { crossEntropyOp, embeddingOp, nearestCodeOp } from '../engine/ops/lookup.js';
import { groupNormOp, layerNormOp, rmsNormOp } from '../engine/ops/normalization.js';
import { adamWOp, sumOfSquaresOp } from '../engine/ops/optimizer.js';
import { Generator } from '../models/generator/generator.js';
import { antialiasedResize, tf1Resize } from '../models/judges/resize.js';
import { Discriminator } from '../models/tokenizer/discriminator.js';
import { toPatches } from '../models/tokenizer/patches.js';
import { toHWIO } from '../nn/layers.js';
import { fillByFormula, uniformNumbers } from './formula.js';

/** What an operation multiplies, if anything: it decides how large rounding errors may be. */
export type Rounding =
  /** Sums and functions of float32 numbers in every precision. */
  | 'sums'
  /** tfjs's own matrix products: float32 numbers, or TF32. */
  | 'products'
  /** What layers multiply: float32 numbers, TF32 or bfloat16. */
  | 'layers'
  /** Several layers in a row, each of which adds its rounding. */
  | 'model'
  /** The same with gradients through kinks: where rounding flips a sign or a maximum, a whole gradient takes another path. */
  | 'kinks'
  /** Weights that are stored in bfloat16 in every precision. */
  | 'packed';

export type Values = Record<string, tf.Tensor>;

/** One check: operations as the models use them, on numbers from a formula. */
export interface OperatorCheck {
  name: string;
  rounding: Rounding;
  /** The operations of the vocabulary that it checks, with their gradients; none for those of tfjs. */
  operations?: readonly AnyOperation[];
  /** Values and gradients by name. Integers and booleans must agree exactly. */
  run(): Values | Promise<Values>;
}

// biome-ignore lint/suspicious/noExplicitAny: each function below knows the ranks of its own inputs
type Tensors<N extends string = string> = Record<N, any>;

/** Numbers in [−scale, scale), which depend on the seed. */
function numbers<T extends tf.Tensor = tf.Tensor>(shape: number[], seed = 1, scale = 1): T {
  const values = uniformNumbers(tf.util.sizeFromShape(shape), seed);
  return tf.tensor(
    Float32Array.from(values, (u) => scale * u),
    shape,
  ) as unknown as T;
}

/** Whole numbers in [0, below). */
function whole<T extends tf.Tensor = tf.Tensor1D>(shape: number[], below: number, seed = 1): T {
  const values = uniformNumbers(tf.util.sizeFromShape(shape), seed);
  return tf.tensor(
    Int32Array.from(values, (u) => Math.floor(((u + 1) / 2) * below)),
    shape,
    'int32',
  ) as unknown as T;
}

const OUTPUT_SEED = 1000;

/** f(inputs), and the gradients by all inputs for a different gradient of each element of the result. */
function differentiated<N extends string>(
  inputs: Record<N, tf.Tensor>,
  f: (inputs: Tensors<N>) => tf.Tensor,
): Values {
  const names = Object.keys(inputs) as N[];
  const y = f(inputs);
  const factors = numbers(y.shape, OUTPUT_SEED);
  const gradients = tf.grads((...tensors) => {
    const named = Object.fromEntries(names.map((name, i) => [name, tensors[i]]));
    return f(named as Tensors<N>)
      .mul(factors)
      .sum();
  })(names.map((name) => inputs[name]));
  return { y, ...Object.fromEntries(names.map((name, i) => [`gradient of ${name}`, gradients[i]])) };
}

/** Joins several sets of results, with their names as prefixes. */
const prefixed = (parts: Record<string, Values>): Values =>
  Object.fromEntries(
    Object.entries(parts).flatMap(([part, values]) =>
      Object.entries(values).map(([name, value]) => [`${part}: ${name}`, value]),
    ),
  );

/** Queries, keys and values (B, T, H, D) as in the models: views into the result of one linear layer. */
function heads([batch, tokens, count, width]: number[]): Record<'q' | 'k' | 'v', tf.Tensor4D> {
  // Large enough for attention weights that differ.
  const all = numbers([batch, tokens, 3, count, width], 1, 2);
  const [q, k, v] = tf.unstack(all, 2) as tf.Tensor4D[];
  return { q, k, v };
}

const attention =
  (shape: number[], options: Parameters<typeof ops.attention>[3]): OperatorCheck['run'] =>
  () =>
    differentiated(heads(shape), ({ q, k, v }) => ops.attention(q, k, v, options));

/** Attention of `queries` new positions over a cache of 20 rows of which `keyLength` are filled. */
const cached =
  (queries: number, keyLength: number, width: number): OperatorCheck['run'] =>
  () => {
    const { k, v } = heads([3, 20, 2, width]);
    const q = numbers<tf.Tensor4D>([3, queries, 2, width], 2, 2);
    return { y: ops.attention(q, k, v, { causal: true, keyLength }) };
  };

/** Decoding steps of a small generator with weights of a `kind`, on the engine's own cache. */
function decoding(kind?: 'bf16'): Values {
  const size = { width: 96, layers: 2, heads: 2, classes: 3 };
  const generator = new Generator({ ...size, codebook_size: 50, prefix_tokens: 4, grid: 3 });
  fillByFormula(generator.parameters, 1);
  for (const p of generator.parameters)
    if (kind && p.shape.length === 2 && !p.name.startsWith('embeddings')) p.pack(kind);
  const cache = generator.createCache(3);
  try {
    const steps = Array.from({ length: 6 }, (_, i) => generator.step(whole([3], 50, i + 1), cache));
    return Object.fromEntries(steps.map((logits, i) => [`logits of step ${i + 1}`, logits]));
  } finally {
    cache.dispose();
    generator.dispose();
  }
}

/** The discriminator's layers in a row, each on the memory layout that the one before it left. */
function discriminating(run: (discriminator: Discriminator, images: tf.Tensor4D) => Values): Values {
  const discriminator = new Discriminator({ hidden_channels: 32, stages: 2 });
  fillByFormula(discriminator.parameters, 1);
  // The weights of the blur are buffers, which the formula leaves zero.
  const taps = [1, 3, 3, 1].flatMap((a) => [1, 3, 3, 1].map((b) => (a * b) / 64));
  for (const p of discriminator.parameters) if (p.buffer) p.value = tf.tensor(taps, [...p.shape]);
  try {
    return run(discriminator, numbers([2, 40, 40, 3]));
  } finally {
    discriminator.parameters.dispose();
  }
}

const discriminatorGradients = (): Values =>
  discriminating((discriminator, images) => {
    const trained = [...discriminator.parameters].filter((p) => !p.buffer);
    const [first, ...gradients] = tf.grads((x) => {
      const y = discriminator.forward(x as tf.Tensor4D);
      return y.mul(numbers(y.shape, OUTPUT_SEED)).sum();
    })([images, ...trained.map((p) => p.value)]);
    return { images: first, ...Object.fromEntries(trained.map((p, i) => [p.name, gradients[i]])) };
  });

/** Steps of AdamW over parameters of many shapes; one has a gradient with another memory layout. */
function optimizing(): Values {
  const shapes = [[1], [7], [129, 65], [33, 7], [3, 5, 3, 3], [2 ** 16 + 3]];
  const attributes = { lr: 0.01, beta1: 0.9, beta2: 0.96, epsilon: 1e-8, weightDecay: 0.1 };
  const gradientOf = (shape: number[], seed: number) =>
    shape.length === 4
      ? numbers([shape[2], shape[3], shape[1], shape[0]], seed).transpose([3, 2, 0, 1])
      : numbers(shape, seed);
  const begun = shapes.map((shape, i) => numbers(shape, i + 1));
  // Copies that nothing else uses, as in training, so that the engine may reuse their memory.
  let state = begun.map((p) => [p.mul(1), tf.fill(p.shape, 0), tf.fill(p.shape, 0)]);
  for (const step of [1, 2, 3]) {
    const tensors = state.map(([parameter, m, v], i) => {
      return { parameter, gradient: gradientOf(shapes[i], 100 * step + i), m, v };
    });
    const next = ops.adamW(tensors, { ...attributes, step, gradientScale: 0.37 });
    tf.dispose(state);
    state = next;
  }
  return Object.fromEntries(
    state.flatMap(([p, m, v], i) => [
      [`change of [${shapes[i]}]`, p.sub(begun[i])],
      [`m of [${shapes[i]}]`, m],
      [`v of [${shapes[i]}]`, v],
    ]),
  );
}

/** A layer before and after its weight was changed in place: nothing derived from the old weight may remain. */
function layerAfterStep(): Values {
  const x = numbers([40, 96]);
  const weight = numbers([56, 96], 2).mul(1);
  const before = ops.linear(x, weight);
  const [m, v] = [tf.fill(weight.shape, 0), tf.fill(weight.shape, 0)];
  const attributes = { lr: 0.3, beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0, step: 1 };
  const tensors = { parameter: weight, gradient: numbers([56, 96], 3), m, v };
  const [[next]] = ops.adamW([tensors], { ...attributes, gradientScale: 1 });
  return { before, after: ops.linear(x, next) };
}

/** Codes so close to each other that products with a shorter mantissa than float32's would find others. */
function nearest(): Values {
  const [groups, each, rows, width, apart] = [64, 16, 200, 32, 0.05];
  const centres = numbers([groups, width], 3);
  const around = (count: number, seed: number) => {
    const repeated = tf.tile(centres, [Math.ceil(count / groups), 1]).slice([0, 0], [count, width]);
    return repeated.add(numbers([count, width], seed, apart)) as tf.Tensor2D;
  };
  return { codes: ops.nearestCode(around(rows, 5), around(groups * each, 4)) };
}

/** A point in [0, 1) for each row. */
const points = (count: number) => numbers([count], 9, 0.5).add(0.5) as tf.Tensor1D;

/** Logits and points that are all at least 3e-6 away from the next code, so that rounding does not change the draw. */
const drawn =
  (batch: number, entries: number, options: ops.DrawOptions): OperatorCheck['run'] =>
  () => ({ codes: ops.drawCodes(numbers([batch, entries], 1, 4), points(batch), options) });

/** Codes of several steps whose logits the device looks up itself, recorded if the engine can. */
function drawnInSteps(guided: boolean): Values {
  const [steps, images, entries] = [5, 3, 400];
  const rows = guided ? 2 * images : images;
  const logits = numbers([steps, rows * entries], 1, 4);
  const variable = <R extends tf.Rank>(values: tf.Tensor<R>) => tf.variable(values, false) as tf.Variable<R>;
  const position = variable(tf.tensor1d([0], 'int32'));
  const ids = variable(tf.fill([rows], 0, 'int32') as tf.Tensor1D);
  const codes = variable(tf.fill([images, steps], 0, 'int32') as tf.Tensor2D);
  const uniforms = points(steps * images).reshape([steps, images]) as tf.Tensor2D;
  const scales = guided ? (numbers([steps], 3).add(2) as tf.Tensor1D) : undefined;
  const state = { position, ids, codes, uniforms, scales };
  const options = { temperature: 1.1, top_k: 50, top_p: 0.9 };
  /** The same for engines without `drawStep`, driven by the host. */
  const drawHere = () => {
    const i = position.dataSync()[0];
    const own = logits.slice([i, 0], [1, -1]).reshape([rows, entries]);
    const [conditional, free] = tf.split(own, guided ? 2 : 1);
    const mixed = scales ? free.add(conditional.sub(free).mul(scales.slice([i], [1]))) : conditional;
    const next = ops.drawCodes(mixed as tf.Tensor2D, uniforms.slice([i, 0], [1, -1]).flatten(), options);
    const columns = [codes.slice([0, 0], [-1, i]), next.expandDims(1), codes.slice([0, i + 1], [-1, -1])];
    codes.assign(tf.concat2d(columns as tf.Tensor2D[], 1));
    ids.assign(guided ? tf.concat1d([next, next]) : next);
    position.assign(position.add(tf.scalar(1, 'int32')));
  };
  const step = new ops.Replayed(() =>
    tf.tidy(() => {
      if (!ops.hasDrawStep()) return drawHere();
      const own = ops.embedding(logits, position).reshape([rows, entries]) as tf.Tensor2D;
      ops.drawStep(own, state, options);
    }),
  );
  try {
    for (let i = 0; i < steps; i++) step.run();
    return { codes: codes.clone(), ids: ids.clone(), position: position.clone() };
  } finally {
    step.close();
    tf.dispose([position, ids, codes]);
  }
}

/** A block of the generator in training, in which each result is passed on in the engine's own precision. */
function block(): Values {
  const [batch, count, width] = [2, 2, 48];
  const [cos, sin] = [numbers<tf.Tensor2D>([37, 24], 5), numbers<tf.Tensor2D>([37, 24], 6)];
  const weights = { qkv: [3 * 96, 96], proj: [96, 96], w1: [128, 96], w3: [128, 96], w2: [96, 128] };
  const inputs = Object.entries(weights).map(([name, shape], i) => [name, numbers(shape, 10 + i, 0.2)]);
  const norms = { norm: numbers([96], 21).add(1), head: numbers([width], 22).add(1) };
  const rounds = { rounds: true };
  return differentiated({ x: numbers([batch, 37, 96], 1), ...norms, ...Object.fromEntries(inputs) }, (t) => {
    const qkv = ops.linear(ops.rmsNorm(t.x, t.norm, rounds), t.qkv).reshape([batch, 37, 3, count, width]);
    const [q, k, v] = tf.unstack(qkv, 2) as tf.Tensor4D[];
    const [turnedQ, turnedK] = [q, k].map((x) => ops.normRotary(x, t.head, cos, sin));
    const y = ops.attention(turnedQ, turnedK, v, { causal: true, dropout: 0.1, seed: 7 });
    const h = t.x.add(ops.dropout(ops.linear(y.reshape([batch, 37, 96]), t.proj), 0.1, 8, rounds));
    const n = ops.rmsNorm(h, t.norm, rounds);
    return h.add(ops.linear(ops.swiGLU(ops.linear(n, t.w1), ops.linear(n, t.w3)), t.w2));
  });
}

function elementwise(): Values {
  const [a, b] = [numbers([3, 1, 37], 1, 3), numbers([2, 1, 5, 37], 2, 3)];
  const [c, positive] = [numbers([3, 1, 37], 3, 3), a.square().add(0.1)];
  const of = (f: (x: tf.Tensor) => tf.Tensor, x: tf.Tensor = a) => differentiated({ x }, (t) => f(t.x));
  const both = (f: (x: tf.Tensor, y: tf.Tensor) => tf.Tensor) => differentiated({ a, b }, (t) => f(t.a, t.b));
  return prefixed({
    abs: of((x) => x.abs()),
    exp: of((x) => x.exp()),
    log: of((x) => x.log(), positive),
    sqrt: of((x) => x.sqrt(), positive),
    rsqrt: of((x) => x.rsqrt(), positive),
    square: of((x) => x.square()),
    pow: of((x) => x.pow(1.7), positive),
    neg: of((x) => x.neg()),
    sigmoid: of((x) => x.sigmoid()),
    tanh: of((x) => x.tanh()),
    relu: of((x) => x.relu()),
    leakyRelu: of((x) => tf.leakyRelu(x, 0.1)),
    clip: of((x) => x.clipByValue(-1, 2)),
    norm: of((x) => x.norm(2, -1, true)),
    softmax: of((x) => x.softmax()),
    add: both((x, y) => x.add(y)),
    sub: both((x, y) => x.sub(y)),
    mul: both((x, y) => x.mul(y)),
    div: both((x, y) => x.div(y.square().add(1))),
    maximum: differentiated({ a, c }, (t) => tf.maximum(t.a, t.c)),
    squaredDifference: differentiated({ a, c }, (t) => tf.squaredDifference(t.a, t.c)),
    addN: { y: tf.addN([a, positive, a.exp()]) },
    where: both((x, y) => {
      const larger = ops.stopGradient(x).greater(ops.stopGradient(y));
      return tf.where(larger, x.add(y), x.sub(y));
    }),
  });
}

function comparisons(): Values {
  const [a, b] = [whole([5, 67], 4, 1), whole([5, 67], 4, 2)];
  const [small, odd] = [a.less(b), a.equal(b)];
  return {
    greater: a.greater(b),
    greaterEqual: a.greaterEqual(b),
    and: small.logicalAnd(odd.logicalNot()),
    or: small.logicalOr(odd),
    'as numbers': odd.toFloat(),
    'as whole numbers': numbers([5, 67], 3, 9).toInt(),
    arithmetic: a.mul(b).add(a).sub(7),
    sum: a.sum(1),
    any: small.any(1),
    all: small.all(0),
    'share of equals': odd.toFloat().mean(),
  };
}

function reductions(): Values {
  const x = numbers([3, 37, 5, 8]);
  const of = (f: (x: tf.Tensor) => tf.Tensor) => differentiated({ x }, (t) => f(t.x));
  // Equal values, of which the first must be chosen.
  const [few, order] = [whole([6, 500], 9), tf.topk(whole([6, 40], 9), 7)];
  return {
    ...prefixed({
      sum: of((t) => t.sum()),
      'sum of the last': of((t) => t.sum(-1, true)),
      'sum of the first': of((t) => t.sum([0, 1])),
      mean: of((t) => t.mean([1, 2])),
      max: of((t) => t.max(1)),
    }),
    argMax: few.argMax(-1),
    argMin: few.toFloat().argMin(-1),
    'largest values': order.values,
    'their places': order.indices,
  };
}

function movements(): Values {
  const [x, y] = [numbers([2, 6, 9, 4]), numbers([2, 6, 2, 4], 2)];
  const of = (f: (x: tf.Tensor) => tf.Tensor) => differentiated({ x }, (t) => f(t.x));
  return prefixed({
    slice: of((t) => t.slice([0, 1, 2, 0], [-1, 3, 5, -1])),
    concat: differentiated({ x, y }, (t) => tf.concat([t.x, t.y, t.x], 2)),
    split: of((t) => tf.concat([...tf.split(t, [2, 3, 4], 2)].reverse(), 2)),
    stack: of((t) => tf.stack([...tf.unstack(t, 1)].reverse(), 2)),
    tile: of((t) => tf.tile(t, [1, 2, 1, 3])),
    pad: of((t) =>
      tf.pad(t, [
        [0, 0],
        [1, 2],
        [0, 3],
        [0, 0],
      ]),
    ),
    transpose: of((t) => t.transpose([0, 3, 1, 2]).reshape([2, 4, 54])),
    patches: differentiated({ images: numbers([2, 16, 16, 3]) }, ({ images }) => toPatches(images, 4)),
    gather: of((t) => tf.gather(t, [2, 0, 2, 5, 2], 1)),
  });
}

function creations(): Values {
  return {
    fill: tf.fill([3, 5], 0.25),
    'fill, whole': tf.fill([3, 5], 7, 'int32'),
    zeros: numbers([7, 3]).zerosLike(),
    ones: tf.onesLike(whole([7, 3], 5)),
    'one-hot': tf.oneHot(whole([2, 9], 5), 5),
    eye: tf.eye(5),
  };
}

/** Numbers to the device and back: few and many, synchronously and not, and views with another memory layout. */
async function transfers(): Promise<Values> {
  const result: Values = {};
  for (const count of [1, 5, 3000, 20_001]) {
    const x = numbers([count], count);
    const [integers, flags] = [whole([count], 1000, count), x.greater(0)];
    const flagsAgain = tf.tensor(await flags.data(), [count], 'bool');
    Object.assign(result, {
      [`${count} numbers`]: x,
      [`${count} read at once`]: tf.tensor(x.dataSync()),
      [`${count} read later`]: tf.tensor(await x.data()),
      [`${count} whole`]: integers,
      [`${count} whole, read at once`]: tf.tensor(integers.dataSync(), [count], 'int32'),
      [`${count} flags`]: flags,
      [`${count} flags, sent back`]: flagsAgain,
    });
  }
  const matrix = numbers<tf.Tensor2D>([300, 101]);
  const view = matrix.slice([10, 3], [200, 50]).transpose();
  return { ...result, 'a view': view, 'a view, read at once': tf.tensor(view.dataSync(), view.shape) };
}

function matrices(): Values {
  const [a, b] = [numbers<tf.Tensor2D>([37, 50]), numbers<tf.Tensor2D>([50, 23], 2)];
  const [c, d] = [numbers([2, 3, 37, 48], 3), numbers([2, 3, 29, 48], 4)];
  const [e, f] = [numbers<tf.Tensor3D>([2, 5, 33], 5), numbers<tf.Tensor3D>([2, 33, 7], 6)];
  return {
    ...prefixed({
      plain: differentiated({ a, b }, (t) => tf.matMul(t.a, t.b)),
      'both transposed': differentiated({ a, b }, (t) => tf.matMul(t.b, t.a, true, true)),
      batches: differentiated({ c, d }, (t) => tf.matMul(t.c, t.d, false, true)),
    }),
    einsum: tf.einsum('bij,bjk->bik', e, f),
  };
}

function wholeMatrices(): Values {
  const [a, b] = [whole<tf.Tensor2D>([37, 50], 90), whole<tf.Tensor2D>([23, 50], 90, 2)];
  const [c, d] = [whole<tf.Tensor3D>([2, 5, 33], 9), whole<tf.Tensor3D>([2, 33, 7], 9, 2)];
  return { matrices: tf.matMul(a, b, false, true), batches: tf.matMul(c, d) };
}

const IMAGES = [2, 19, 18, 6];

const convolution =
  (shape: number[], filter: number[], stride: number, pad: 'same' | 'valid'): OperatorCheck['run'] =>
  () => {
    const inputs = { x: numbers(shape), weight: numbers(filter, 2) };
    return differentiated(inputs, ({ x, weight }) => tf.conv2d(x, toHWIO(weight), stride, pad));
  };

/** A depthwise convolution of x by a filter (4, 4, C, 1). */
const depthwise =
  (shape: number[], stride: number): OperatorCheck['run'] =>
  () => {
    const inputs = { x: numbers(shape), filter: numbers([4, 4, shape[3], 1], 2) };
    return differentiated(inputs, ({ x, filter }) => tf.depthwiseConv2d(x, filter, stride, 'same'));
  };

function frozenConvolutions(): Values {
  const of = (
    kernel: [number, number],
    options: Parameters<typeof ops.frozenConv2d>[3],
    shape: number[] = IMAGES,
  ) => {
    const weight = numbers([10, shape[3], ...kernel], 2);
    // Far enough from zero that rounding flips no sign, on which the gradient of a ReLU depends.
    const bias = tf.tensor(Array.from({ length: 10 }, (_, i) => (i % 2 ? 15 : -15)));
    return differentiated({ x: numbers(shape) }, ({ x }) => ops.frozenConv2d(x, weight, bias, options));
  };
  return prefixed({
    'of 3×3 with ReLU': of([3, 3], { same: true, relu: true }),
    'of 1×7': of([1, 7], { same: true, relu: true }),
    'of 7×1': of([7, 1], { same: true, relu: true }),
    'of 1×1': of([1, 1], { same: true }),
    halving: of([3, 3], { stride: 2, relu: true }),
    'of patches': of([4, 4], { stride: 4 }, [2, 16, 16, 3]),
  });
}

function pooling(): Values {
  const of = (f: (x: tf.Tensor4D) => tf.Tensor) => differentiated({ x: numbers(IMAGES) }, (t) => f(t.x));
  return prefixed({
    'means of 3×3': of((x) => tf.avgPool(x, 3, 1, 'same')),
    'maxima of 3×3': of((x) => tf.maxPool(x, 3, 1, 'same')),
    'maxima of 3×3, halving': of((x) => tf.maxPool(x, 3, 2, 'valid')),
    'maxima of 2×2': of((x) => tf.maxPool(x, 2, 2, 'valid')),
  });
}

function resizing(): Values {
  const x = numbers<tf.Tensor4D>(IMAGES);
  return {
    "TensorFlow 1's": tf1Resize(x, [31, 29]),
    ...prefixed({
      antialiased: differentiated({ x }, (t) => antialiasedResize(t.x, [11, 13])),
    }),
    bilinear: tf.image.resizeBilinear(x, [11, 13], false, true),
  };
}

/** A linear layer on x of any rank, with or without a bias. */
const layer =
  (shape: number[], outputs: number, bias: boolean): OperatorCheck['run'] =>
  () => {
    const inputs = { x: numbers(shape), weight: numbers([outputs, shape.at(-1)!], 2) };
    const all = bias ? { ...inputs, bias: numbers([outputs], 3) } : inputs;
    return differentiated(all, (t: Tensors) => ops.linear(t.x, t.weight, t.bias));
  };

function packedLayers(): Values {
  const [weight, bias] = [numbers([200, 96], 2), numbers([200], 3)];
  const packed = ops.packWeight(weight, 'bf16');
  return {
    'one row': ops.packedLinear(numbers([1, 96]), packed, bias),
    'three rows': ops.packedLinear(numbers([3, 1, 96]), packed),
    'many rows': ops.packedLinear(numbers([70, 96]), packed, bias),
  };
}

const tokens = [2, 37, 96];

/** All checks, from simple operations to those that are made of them. */
export const OPERATOR_CHECKS: readonly OperatorCheck[] = [
  { name: 'transfers', rounding: 'sums', run: transfers },
  { name: 'new tensors', rounding: 'sums', run: creations },
  { name: 'elementwise arithmetic', rounding: 'sums', run: elementwise },
  { name: 'comparisons and integers', rounding: 'sums', run: comparisons },
  { name: 'reductions', rounding: 'sums', run: reductions },
  { name: 'slices, stacks and gathers', rounding: 'sums', run: movements },
  {
    name: 'segment sums',
    rounding: 'sums',
    run: () => {
      const ids = whole([500], 21).sub(tf.scalar(1, 'int32')) as tf.Tensor1D; // −1 belongs to no segment
      return { y: tf.unsortedSegmentSum(numbers([500, 9]), ids, 20) };
    },
  },
  {
    name: 'bincount',
    rounding: 'sums',
    run: () => ({ y: tf.bincount(whole<tf.Tensor1D>([5000], 70), [], 64) }),
  },
  { name: 'matrix products', rounding: 'products', run: matrices },
  { name: 'integer matrix products', rounding: 'products', run: wholeMatrices },
  { name: 'linear', rounding: 'layers', operations: [linearOp], run: layer([2, 74, 96], 200, true) },
  {
    name: 'linear without bias',
    rounding: 'layers',
    operations: [linearOp],
    run: layer([148, 80], 56, false),
  },
  {
    name: 'linear of odd widths',
    rounding: 'layers',
    operations: [linearOp],
    run: layer([3, 5, 33], 7, true),
  },
  {
    name: 'linear of few rows',
    rounding: 'layers',
    operations: [linearOp],
    run: layer([3, 1, 96], 200, true),
  },
  {
    name: 'linear after a step of AdamW',
    rounding: 'layers',
    operations: [linearOp, adamWOp],
    run: layerAfterStep,
  },
  {
    name: 'packedLinear',
    rounding: 'packed',
    operations: [packWeightOp, packedLinearOp],
    run: packedLayers,
  },
  {
    name: 'attention, causal',
    rounding: 'layers',
    operations: [attentionOp],
    run: attention([2, 74, 2, 48], { causal: true }),
  },
  {
    name: 'attention, bidirectional',
    rounding: 'layers',
    operations: [attentionOp],
    run: attention([2, 53, 2, 64], {}),
  },
  {
    name: 'attention, narrow heads',
    rounding: 'layers',
    operations: [attentionOp],
    run: attention([2, 21, 3, 12], { causal: true }),
  },
  {
    name: 'attention with dropout',
    rounding: 'layers',
    operations: [attentionOp],
    run: attention([2, 37, 2, 48], { causal: true, dropout: 0.1, seed: 3e9 }),
  },
  { name: 'attention over a cache', rounding: 'layers', operations: [attentionOp], run: cached(1, 13, 48) },
  {
    name: 'attention of several queries over a cache',
    rounding: 'layers',
    operations: [attentionOp],
    run: cached(4, 13, 64),
  },
  {
    name: 'cacheWrite',
    rounding: 'sums',
    operations: [newCacheOp, cacheWriteOp],
    run: () => {
      const cache = tf.variable(numbers<tf.Tensor4D>([2, 9, 2, 48]).mul(1), false) as tf.Variable<tf.Rank.R4>;
      ops.cacheWrite(cache, numbers([2, 3, 2, 48], 2), 4);
      const empty = ops.newCache([2, 9, 2, 48]);
      const values = { y: cache.mul(1), empty: ops.attention(numbers([2, 1, 2, 48]), empty, empty) };
      tf.dispose([cache, empty]);
      return values;
    },
  },
  {
    name: 'rotary',
    rounding: 'sums',
    operations: [rotaryOp],
    run: () => {
      const [cos, sin] = [numbers<tf.Tensor2D>([37, 24], 5), numbers<tf.Tensor2D>([37, 24], 6)];
      const { q, k } = heads([2, 37, 2, 48]);
      return differentiated({ q, k }, (t) => ops.rotary(t.q, cos, sin).add(ops.rotary(t.k, cos, sin)));
    },
  },
  {
    name: 'normRotary',
    rounding: 'sums',
    operations: [normRotaryOp],
    run: () => {
      const [cos, sin] = [numbers<tf.Tensor2D>([37, 24], 5), numbers<tf.Tensor2D>([37, 24], 6)];
      const inputs = { x: heads([2, 37, 2, 48]).k, weight: numbers([48], 2) };
      return differentiated(inputs, (t) => ops.normRotary(t.x, t.weight, cos, sin));
    },
  },
  {
    name: 'rmsNorm',
    rounding: 'sums',
    operations: [rmsNormOp],
    run: () => {
      const of = (x: tf.Tensor) =>
        differentiated({ x, weight: numbers([x.shape.at(-1)!], 2) }, (t) => ops.rmsNorm(t.x, t.weight));
      return prefixed({ tokens: of(numbers(tokens)), heads: of(heads([2, 37, 2, 48]).k) });
    },
  },
  {
    name: 'layerNorm',
    rounding: 'sums',
    operations: [layerNormOp],
    run: () => {
      const inputs = { x: numbers(tokens).add(2), weight: numbers([96], 2), bias: numbers([96], 3) };
      return differentiated(inputs, (t) => ops.layerNorm(t.x, t.weight, t.bias));
    },
  },
  {
    name: 'groupNorm',
    rounding: 'sums',
    operations: [groupNormOp],
    run: () => {
      const inputs = { x: numbers([2, 7, 5, 64]).add(1), weight: numbers([64], 2), bias: numbers([64], 3) };
      return differentiated(inputs, (t) => ops.groupNorm(t.x, t.weight, t.bias, 32));
    },
  },
  {
    name: 'gelu',
    rounding: 'sums',
    operations: [geluOp],
    run: () => differentiated({ x: numbers(tokens, 1, 5) }, (t) => ops.gelu(t.x)),
  },
  {
    name: 'swiGLU',
    rounding: 'sums',
    operations: [swiGLUOp],
    run: () => {
      const inputs = { gate: numbers(tokens, 1, 5), value: numbers(tokens, 2) };
      return differentiated(inputs, (t) => ops.swiGLU(t.gate, t.value));
    },
  },
  {
    name: 'dropout',
    rounding: 'sums',
    operations: [dropoutOp],
    run: () => {
      const of = (rate: number, seed: number) => {
        const values = differentiated({ x: numbers([10_007]) }, (t) => ops.dropout(t.x, rate, seed));
        return { ...values, kept: values.y.notEqual(0) };
      };
      return prefixed({ 'a tenth': of(0.1, 7), 'of a large seed': of(0.5, 4_000_000_000) });
    },
  },
  {
    name: 'embedding',
    rounding: 'sums',
    operations: [embeddingOp],
    run: () => {
      const indices = whole([9, 37], 50);
      return differentiated({ weight: numbers([53, 96]) }, (t) => ops.embedding(t.weight, indices));
    },
  },
  {
    name: 'crossEntropy',
    rounding: 'sums',
    operations: [crossEntropyOp],
    run: () => {
      const targets = whole([21], 4096);
      return differentiated({ logits: numbers([21, 4096], 1, 20) }, (t) =>
        ops.crossEntropy(t.logits, targets),
      );
    },
  },
  { name: 'nearestCode', rounding: 'sums', operations: [nearestCodeOp], run: nearest },
  {
    name: 'drawCodes, the most likely',
    rounding: 'sums',
    operations: [drawCodesOp],
    run: drawn(9, 4096, { temperature: 0, top_k: 0, top_p: 1 }),
  },
  {
    name: 'drawCodes, all codes',
    rounding: 'sums',
    operations: [drawCodesOp],
    run: drawn(9, 4096, { temperature: 1.3, top_k: 0, top_p: 1 }),
  },
  {
    name: 'drawCodes of top_k and top_p',
    rounding: 'sums',
    operations: [drawCodesOp],
    run: drawn(9, 400, { temperature: 0.9, top_k: 30, top_p: 0.8 }),
  },
  { name: 'drawStep', rounding: 'sums', operations: [drawStepOp], run: () => drawnInSteps(false) },
  {
    name: 'drawStep, guided',
    rounding: 'sums',
    operations: [drawStepOp],
    run: () => drawnInSteps(true),
  },
  {
    name: 'sumOfSquares',
    rounding: 'sums',
    operations: [sumOfSquaresOp],
    run: () => ({
      y: ops.sumOfSquares([numbers([129, 65]), numbers([1], 2), numbers([3, 5, 3, 3], 3), numbers([], 4)]),
    }),
  },
  { name: 'adamW', rounding: 'sums', operations: [adamWOp], run: optimizing },
  { name: 'convolution', rounding: 'layers', run: convolution([2, 32, 32, 3], [32, 3, 5, 5], 1, 'same') },
  {
    name: 'convolution to one channel',
    rounding: 'layers',
    run: convolution(IMAGES, [1, 6, 5, 5], 1, 'same'),
  },
  { name: 'pointwise convolution', rounding: 'layers', run: convolution(IMAGES, [8, 6, 1, 1], 1, 'same') },
  { name: 'convolution, stride 2', rounding: 'layers', run: convolution(IMAGES, [8, 6, 3, 3], 2, 'same') },
  {
    name: 'convolution, stride 2, valid',
    rounding: 'layers',
    run: convolution(IMAGES, [8, 6, 3, 3], 2, 'valid'),
  },
  { name: 'depthwise convolution', rounding: 'layers', run: depthwise(IMAGES, 2) },
  { name: 'frozenConv2d', rounding: 'layers', operations: [frozenConv2dOp], run: frozenConvolutions },
  {
    name: 'frozenDepthwiseConv2d',
    rounding: 'layers',
    operations: [frozenDepthwiseConv2dOp],
    run: () => {
      const [weight, bias] = [numbers([38, 1, 7, 7], 2), numbers([38], 3)];
      return differentiated({ x: numbers([2, 9, 10, 38]) }, ({ x }) =>
        ops.frozenDepthwiseConv2d(x, weight, bias),
      );
    },
  },
  {
    name: 'frozenLinear',
    rounding: 'layers',
    operations: [frozenLinearOp],
    run: () => {
      const [weight, bias] = [numbers([56, 96], 2), numbers([56], 3)];
      return differentiated({ x: numbers(tokens) }, ({ x }) => ops.frozenLinear(x, weight, bias));
    },
  },
  { name: 'pooling', rounding: 'sums', run: pooling },
  { name: 'resizing', rounding: 'products', run: resizing },
  {
    name: 'checkpointActivations',
    rounding: 'layers',
    run: () => {
      const weight = numbers([96, 96], 2);
      return differentiated({ x: numbers(tokens), weight }, (t) =>
        ops.checkpointActivations((x) => ops.gelu(ops.linear(x, t.weight)), t.x, [t.weight]),
      );
    },
  },
  {
    name: 'the discriminator',
    rounding: 'model',
    run: () => discriminating((discriminator, images) => ({ logits: discriminator.forward(images) })),
  },
  { name: "the discriminator's gradients", rounding: 'kinks', run: discriminatorGradients },
  { name: 'a block in training', rounding: 'model', run: block },
  { name: 'decoding', rounding: 'model', operations: [generatorStepOp, joinLayersOp], run: () => decoding() },
  {
    name: 'decoding, packed',
    rounding: 'packed',
    operations: [generatorStepOp, joinLayersOp],
    run: () => decoding('bf16'),
  },
];
