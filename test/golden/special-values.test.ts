import { readFileSync } from 'node:fs';
import * as tf from '@tensorflow/tfjs';
import { expect, it } from 'vitest';
import type { EngineName } from '../../src/engine/index.js';
import * as ops from '../../src/engine/ops/index.js';
import { describeEngines } from '../support/engines.js';

// Zeros, denormals, the largest numbers, infinities and NaN through every operation, compared with PyTorch's results
// (special_values.py). The class of a number (zero, finite, infinite, NaN) must agree exactly, its value to a tolerance.

interface Stored {
  shape: number[];
  dtype?: tf.DataType;
  values: (number | string)[];
}

interface Case {
  name: string;
  note?: string;
  inputs: number[];
  results: Stored[];
  dy?: number;
  gradients?: Stored[];
}

const { tensors, cases } = JSON.parse(
  readFileSync(new URL('../fixtures/special-values.json', import.meta.url), 'utf8'),
) as { tensors: Stored[]; cases: Case[] };

type Run = (...x: never[]) => tf.Tensor | tf.Tensor[];
type T = tf.Tensor;

interface Operation {
  run: Run;
  /** Largest relative error of a number; by default, that of a few roundings. */
  relative?: number;
  /** Absolute error allowed for a number of any size: that of a sum whose terms cancel. */
  absolute?: number;
  /** The gradient's, where it is larger. */
  gradient?: { relative?: number; absolute?: number };
  /** Whether the sign of zero must agree. */
  signed?: boolean;
}

const one = (run: (x: T) => T, more: Omit<Operation, 'run'> = {}): Operation => ({ run, ...more });
const two = (run: (x: T, y: T) => T, more: Omit<Operation, 'run'> = {}): Operation => ({ run, ...more });

const ROUNDING = 2e-6;
const SIGNED = { signed: true };
/** Our own exponentials, in wasm and in libtorch's SwiGLU and attention, may round anything below this to zero. */
const DENORMAL = 2 ** -126;
/** Sums of a few small numbers, in any order. */
const SUM = { relative: 1e-5, absolute: 2e-6 };
/** Gradients through the softmax are differences. */
const ATTENTION = { ...SUM, gradient: { relative: 1e-3, absolute: 1e-5 } };

const draw = (temperature: number) => (logits: tf.Tensor2D, uniforms: tf.Tensor1D) =>
  ops.drawCodes(logits, uniforms, { temperature, top_k: 0, top_p: 1 });

const OPERATIONS: Record<string, Operation> = {
  abs: one(tf.abs, SIGNED),
  acos: one(tf.acos),
  acosh: one(tf.acosh),
  asin: one(tf.asin),
  asinh: one(tf.asinh),
  atan: one(tf.atan),
  atanh: one(tf.atanh),
  ceil: one(tf.ceil, SIGNED),
  clip: one((x) => tf.clipByValue(x, -1, 2)),
  cos: one(tf.cos, { absolute: 1e-6 }),
  cosh: one(tf.cosh),
  elu: one(tf.elu, { absolute: 1e-7 }),
  erf: one(tf.erf, { absolute: 1e-6 }),
  exp: one(tf.exp, { absolute: DENORMAL, gradient: { absolute: 3 * DENORMAL } }),
  expm1: one(tf.expm1),
  floor: one(tf.floor, SIGNED),
  gelu: one(ops.gelu, { absolute: 2e-6 }),
  isFinite: one(tf.isFinite),
  isInf: one(tf.isInf),
  isNaN: one(tf.isNaN),
  leakyRelu: one((x) => tf.leakyRelu(x, 0.1), SIGNED),
  log: one(tf.log),
  log1p: one(tf.log1p, { absolute: 1e-7 }),
  neg: one(tf.neg, SIGNED),
  reciprocal: one(tf.reciprocal, SIGNED),
  relu: one(tf.relu),
  relu6: one(tf.relu6),
  round: one(tf.round),
  rsqrt: one(tf.rsqrt),
  selu: one(tf.selu, { absolute: 1e-7 }),
  sigmoid: one(tf.sigmoid, { absolute: DENORMAL, gradient: { absolute: 1e-6 } }),
  sign: one(tf.sign),
  sin: one(tf.sin, { absolute: 1e-6 }),
  sinh: one(tf.sinh),
  softplus: one(tf.softplus, { absolute: DENORMAL }),
  sqrt: one(tf.sqrt, SIGNED),
  square: one(tf.square, SIGNED),
  tan: one(tf.tan, { relative: 1e-5, absolute: 1e-6 }),
  tanh: one(tf.tanh, { ...SIGNED, gradient: { absolute: 1e-6 } }),
  toBool: one((x) => x.toBool()),
  zerosLike: one(tf.zerosLike),
  dropout: one((x) => ops.dropout(x, 0.5, 1)),

  add: two(tf.add, SIGNED),
  atan2: two(tf.atan2),
  div: two(tf.div, SIGNED),
  equal: two(tf.equal),
  greater: two(tf.greater),
  greaterEqual: two(tf.greaterEqual),
  less: two(tf.less),
  lessEqual: two(tf.lessEqual),
  maximum: two(tf.maximum),
  minimum: two(tf.minimum),
  mul: two(tf.mul, SIGNED),
  notEqual: two(tf.notEqual),
  pow: two(tf.pow),
  squaredDifference: two(tf.squaredDifference),
  sub: two(tf.sub, SIGNED),
  where: two((x, y) => tf.where(x.greater(y), x, y), SIGNED),
  swiGLU: two(ops.swiGLU, { absolute: 1e-36 }),

  softmax: one((x) => tf.softmax(x), { absolute: 1e-7 }),
  logSoftmax: one((x) => tf.logSoftmax(x), SUM),
  norm: one((x) => tf.norm(x, 2, -1, true), SUM),
  mean: one((x) => tf.mean(x, -1), SUM),
  sum: one((x) => tf.sum(x, -1), SUM),
  all: one((x) => tf.all(x.toBool(), -1)),
  any: one((x) => tf.any(x.toBool(), -1)),
  argMax: one((x) => tf.argMax(x, -1)),
  argMin: one((x) => tf.argMin(x, -1)),
  cumsum: one((x) => tf.cumsum(x, 1), SUM),
  logSumExp: one((x) => tf.logSumExp(x, -1), SUM),
  max: one((x) => tf.max(x, -1)),
  min: one((x) => tf.min(x, -1)),
  prod: one((x) => tf.prod(x, -1)),
  sumOfRows: one((x) => tf.sum(x, 0), SUM),
  topk: one((x) => tf.topk(x, 3).values),
  sumOfSquares: { run: (...x: T[]) => ops.sumOfSquares(x) },

  layerNorm: { run: ops.layerNorm, relative: 1e-4, absolute: 1e-5 },
  rmsNorm: { run: ops.rmsNorm, relative: 1e-4, absolute: 1e-5 },
  groupNorm: {
    run: (x: tf.Tensor4D, w: T, b: T) => ops.groupNorm(x, w, b, 2),
    ...{ relative: 1e-4, absolute: 1e-5 },
  },
  crossEntropy: { run: ops.crossEntropy, ...SUM },
  embedding: two(ops.embedding),
  embeddingGrad: two((dy, indices) => tf.unsortedSegmentSum(dy, indices as tf.Tensor1D, 5)),
  'drawCodes, temperature 0': { run: draw(0) },
  'drawCodes, temperature 1': { run: draw(1) },
  'drawCodes, temperature 2': { run: draw(2) },
  nearestCode: { run: ops.nearestCode },

  matMul: { run: (a: tf.Tensor2D, b: tf.Tensor2D) => tf.matMul(a, b), ...SUM },
  batchMatMul: two((a, b) => tf.matMul(a, b), SUM),
  linear: { run: ops.linear, ...SUM },
  conv2d: {
    run: (x: tf.Tensor4D, w: T) => tf.conv2d(x, w.transpose([2, 3, 1, 0]) as tf.Tensor4D, 1, 'same'),
    ...SUM,
  },
  conv2dRelu: {
    run: (x: tf.Tensor4D, w: T, b: T) => ops.frozenConv2d(x, w, b, { same: true, relu: true }),
    ...SUM,
  },
  depthwiseConv2d: { run: ops.frozenDepthwiseConv2d, ...SUM },
  'maxPool halving': one((x) => tf.maxPool(x as tf.Tensor4D, 2, 2, 'valid')),
  'maxPool of three': one((x) => tf.maxPool(x as tf.Tensor4D, 3, 1, 'same')),
  'avgPool of three': one((x) => tf.avgPool(x as tf.Tensor4D, 3, 1, 'same'), SUM),
  attention: {
    run: (q: tf.Tensor4D, k: tf.Tensor4D, v: tf.Tensor4D) => ops.attention(q, k, v),
    ...ATTENTION,
  },
  'causal attention': {
    run: (q: tf.Tensor4D, k: tf.Tensor4D, v: tf.Tensor4D) => ops.attention(q, k, v, { causal: true }),
    ...ATTENTION,
  },
  'longer causal attention': {
    run: (q: tf.Tensor4D, k: tf.Tensor4D, v: tf.Tensor4D) => ops.attention(q, k, v, { causal: true }),
    ...ATTENTION,
  },
  rotary: { run: ops.rotary, ...SUM },
  adamW: {
    run: (parameter: T, gradient: T, m: T, v: T) =>
      ops.adamW([{ parameter, gradient, m: m.clone(), v: v.clone() }], {
        ...{ lr: 0.01, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1 },
        ...{ step: 5, gradientScale: 1 },
      })[0],
    relative: 1e-5,
  },
};

interface Known {
  /** The known difference, as `expected → got`. */
  differs?: string[];
  /** A difference only of some versions of the library, or on some processors. */
  varies?: string[];
  reason: string;
}

const TFJS = "tfjs-core's formula, the same for every engine; nothing that is trained depends on it";
const UNUSED = "tfjs's own kernel, which no model uses";
const JAVASCRIPT = "tfjs's own kernel in JavaScript; this engine is for tests alone";

/** All known differences: a missing or new one fails the test, except where results vary. */
const EVERYWHERE: Record<string, Known> = {
  'gradient of abs': { differs: ['0 → number', '−0 → number', '−0 → NaN'], reason: TFJS },
  'gradient of norm': { differs: ['0 → NaN', '−0 → NaN'], reason: TFJS },
  'gradient of relu': { differs: ['number → NaN'], reason: 'the slope at NaN is NaN, not 1' },
  'gradient of rsqrt': { differs: ['NaN → 0', '∞ → −∞'], reason: TFJS },
  logSumExp: { differs: ['∞ → NaN', '−∞ → NaN'], reason: TFJS },
};

const OUTSIDE_LIBTORCH: Record<string, Known> = {
  cosh: { differs: ['∞ → number'], reason: 'PyTorch overflows before the result does' },
  sinh: { differs: ['∞ → number', '−∞ → number'], reason: 'PyTorch overflows before the result does' },
  'gradient of layerNorm': {
    differs: ['NaN → −∞'],
    reason: 'an infinite weight: PyTorch adds up infinities of both signs, here they stay apart',
  },
  'gradient of avgPool of three': {
    differs: ['another number', 'number → 0'],
    reason: 'tfjs divides by the whole window at the edges too; networks with such pools are not trained',
  },
};

/** The difference of an engine that takes denormals for zeros. */
const FLUSHED = 'denormal as zero';

/** Where TensorFlow, whose threads flush denormals, gives what it gives for zero. */
const FLUSHED_IN_TENSORFLOW = [
  ...`
    add asin atan atan2 atanh ceil clip div equal floor greater greaterEqual leakyRelu less
    lessEqual log maximum min minimum mul notEqual pow reciprocal relu relu6 rsqrt sign sqrt square
    sub swiGLU tanh toBool where
  `
    .trim()
    .split(/\s+/),
  ...['abs', 'leakyRelu', 'log', 'norm', 'relu', 'rsqrt', 'sqrt', 'square'].map(
    (name) => `gradient of ${name}`,
  ),
];
const FLUSH = 'TensorFlow flushes denormals to zero in all its threads';

const OF_TENSORFLOW: Record<string, Known> = {
  ...EVERYWHERE,
  cosh: OUTSIDE_LIBTORCH.cosh,
  sinh: OUTSIDE_LIBTORCH.sinh,
  'gradient of layerNorm': OUTSIDE_LIBTORCH['gradient of layerNorm'],
  'gradient of attention': {
    differs: ['0 → number'],
    reason: 'keys of 10³⁰: differences of numbers that cancel in PyTorch',
  },
  swiGLU: {
    differs: ['∞ → NaN', '−∞ → NaN'],
    reason: `${FLUSH}: half of the smallest number, times infinity`,
  },
  'gradient of swiGLU': {
    differs: ['∞ → NaN', '−∞ → NaN'],
    reason: `${FLUSH}: the sigmoid of numbers around −88, times infinity`,
  },
  argMin: { differs: ['number → 0'], reason: `${FLUSH}: the first of equal numbers` },
  topk: { differs: ['NaN → number', 'another number', 'another denormal'], reason: UNUSED },
  adamW: {
    differs: ['number → NaN', '∞ → NaN'],
    reason: 'an infinite second moment: TensorFlow subtracts it from the square of the gradient',
  },
};

const TENSORFLOW: Record<string, Known> = {
  ...OF_TENSORFLOW,
  ...Object.fromEntries(
    FLUSHED_IN_TENSORFLOW.map((part): [string, Known] => {
      const { differs = [], reason = FLUSH } = (OF_TENSORFLOW[part] ?? {}) as Partial<Known>;
      return [part, { differs: [...differs, FLUSHED], reason }];
    }),
  ),
};

const KNOWN: Record<EngineName, Record<string, Known>> = {
  libtorch: {
    ...EVERYWHERE,
    gelu: {
      varies: ['number → ∞', '∞ → NaN'],
      reason: "oneDNN's, which newer versions take; special_values.py leaves it out",
    },
    cosh: { varies: ['∞ → number'], reason: 'on a processor without vector instructions' },
    sinh: { varies: ['∞ → number', '−∞ → number'], reason: 'on a processor without vector instructions' },
    groupNorm: { varies: ['NaN → number'], reason: 'a variance that overflows, by version' },
    'gradient of groupNorm': {
      varies: ['NaN → 0', 'NaN → number'],
      reason: 'a variance that overflows, by version',
    },
    'longer causal attention': {
      differs: ['NaN → number'],
      reason:
        'keys that none of a block of queries sees are left out; in PyTorch they are multiplied by zero',
    },
  },
  tensorflow: TENSORFLOW,
  wasm: {
    ...EVERYWHERE,
    ...OUTSIDE_LIBTORCH,
    cos: { differs: ['another number'], reason: `${UNUSED} on numbers above 10²⁰` },
    sin: { differs: ['another number'], reason: `${UNUSED} on numbers above 10²⁰` },
    sign: { differs: ['number → 0'], reason: `${UNUSED}, takes denormals for zero` },
    topk: { differs: ['NaN → number', 'another number', 'number → NaN'], reason: UNUSED },
  },
  cpu: {
    ...EVERYWHERE,
    ...OUTSIDE_LIBTORCH,
    argMax: { differs: ['another number'], reason: JAVASCRIPT },
    argMin: { differs: ['number → 0'], reason: JAVASCRIPT },
    embeddingGrad: { differs: ['number → NaN', '0 → NaN'], reason: `${JAVASCRIPT}: other rows times zero` },
    'maxPool halving': { differs: ['NaN → number'], reason: JAVASCRIPT },
    'maxPool of three': { differs: ['NaN → number'], reason: JAVASCRIPT },
    'gradient of maxPool halving': { differs: ['0 → number', 'number → 0'], reason: JAVASCRIPT },
    'gradient of maxPool of three': {
      differs: ['0 → number', 'number → 0', 'another number'],
      reason: JAVASCRIPT,
    },
    mean: { differs: ['∞ → number'], reason: `${JAVASCRIPT}, adds up in float64` },
    pow: { differs: ['number → NaN'], reason: `${JAVASCRIPT}: Math.pow(1, ∞) is NaN` },
    prod: { differs: ['NaN → −0'], reason: `${JAVASCRIPT}, multiplies in float64` },
    swiGLU: { differs: ['NaN → −∞'], reason: `${JAVASCRIPT}: a sigmoid in float64 ends later` },
    'gradient of swiGLU': {
      differs: ['NaN → −∞', 'NaN → ∞'],
      reason: `${JAVASCRIPT}: a sigmoid in float64 ends later`,
    },
    topk: {
      differs: ['NaN → number', 'NaN → ∞', '∞ → NaN', 'another number', 'number → NaN'],
      reason: JAVASCRIPT,
    },
  },
};

function kindOf(x: number): string {
  if (Number.isNaN(x)) return 'NaN';
  if (!Number.isFinite(x)) return x > 0 ? '∞' : '−∞';
  if (x === 0) return Object.is(x, -0) ? '−0' : '0';
  return Math.abs(x) < DENORMAL ? 'denormal' : 'number';
}

/** `expected → got` where they differ, or undefined. */
function difference(
  expected: number,
  got: number,
  { relative = ROUNDING, absolute = 0, signed = false }: Omit<Operation, 'run'>,
): string | undefined {
  const [wanted, given] = [kindOf(expected), kindOf(got)];
  const said = `${wanted} → ${given}`;
  if (![expected, got].every(Number.isFinite)) return wanted === given ? undefined : said;
  if (expected === 0 && got === 0) return wanted === given || !signed ? undefined : said;
  const close = Math.abs(got - expected) <= relative * Math.abs(expected) + absolute;
  return close ? undefined : wanted === given ? `another ${wanted}` : said;
}

/** Whether a result can differ because a denormal was taken for zero: one of the numbers given for it, or the result itself. */
const isFlushed = (expected: number, got: number, given: number[]): boolean =>
  given.some((x) => kindOf(x) === 'denormal') ||
  (kindOf(expected) === 'denormal' && Object.is(got, expected < 0 ? -0 : 0));

const toTensor = ({ values, shape, dtype = 'float32' }: Stored) =>
  tf.tensor(values.map(Number), shape, dtype === 'bool' ? 'bool' : dtype);

describeEngines(
  "PyTorch's values at the ends of float32",
  (engine) => {
    for (const [name, operation] of Object.entries(OPERATIONS)) {
      const own = cases.filter((one) => name === one.name || name === `${one.name}, ${one.note}`);
      const check = (
        part: string,
        checked: Case[],
        tolerance: Omit<Operation, 'run'>,
        outputs: (one: Case, inputs: T[]) => [Stored[], tf.Tensor[]],
      ) => {
        it(part, () => {
          const found = new Map<string, string>();
          for (const one of checked)
            tf.tidy(() => {
              const inputs = one.inputs.map((i) => toTensor(tensors[i]));
              const [expected, got] = outputs(one, inputs);
              expected.forEach((stored, i) => {
                expect(got[i].shape, `${one.note}`).toEqual(stored.shape);
                const values = got[i].dataSync();
                stored.values.forEach((value, at) => {
                  const said = difference(Number(value), values[at], tolerance);
                  if (!said) return;
                  const given = inputs.filter((x) => x.size === values.length).map((x) => x.dataSync()[at]);
                  const flushed = engine === 'tensorflow' && isFlushed(Number(value), values[at], given);
                  const differs = flushed ? FLUSHED : said;
                  if (found.has(differs)) return;
                  const where = `${one.note ? `${one.note}, ` : ''}result ${i}, element ${at}`;
                  found.set(differs, `${where}: ${values[at]} for ${value} (${given})`);
                });
              });
            });
          const { differs = [], varies = [] } = (KNOWN[engine][part] ?? {}) as Partial<Known>;
          const message = [...found].map(([kind, example]) => `${kind}: ${example}`).join('\n');
          const always = [...found.keys()].filter((kind) => !varies.includes(kind));
          expect(always.sort(), message).toEqual([...differs].sort());
        });
      };
      check(name, own, operation, (one, inputs) => {
        const results = operation.run(...(inputs as never[]));
        return [one.results, Array.isArray(results) ? results : [results]];
      });
      const differentiated = own.filter(({ gradients }) => gradients);
      const tolerance = { ...operation, signed: false, ...operation.gradient };
      if (differentiated.length > 0)
        check(`gradient of ${name}`, differentiated, tolerance, (one, inputs) => {
          const floats = inputs.filter(({ dtype }) => dtype === 'float32').slice(0, one.gradients!.length);
          const whole = (...x: T[]) => {
            const all = inputs.map((input) => (floats.includes(input) ? x[floats.indexOf(input)] : input));
            return operation.run(...(all as never[])) as T;
          };
          return [one.gradients!, tf.grads(whole)(floats, toTensor(tensors[one.dy!]))];
        });
    }

    it('has all cases, and lists no difference that is never checked', () => {
      const names = cases.flatMap(({ name, note }) => [name, `${name}, ${note}`]);
      expect(Object.keys(OPERATIONS).filter((name) => !names.includes(name))).toEqual([]);
      expect(new Set(cases.map(({ name }) => name)).size).toBe(
        new Set(Object.keys(OPERATIONS).map((name) => name.split(',')[0])).size,
      );
      const parts = Object.keys(OPERATIONS).flatMap((name) => [name, `gradient of ${name}`]);
      expect(Object.keys(KNOWN[engine]).filter((part) => !parts.includes(part))).toEqual([]);
    });
  },
  ['cpu'],
);
