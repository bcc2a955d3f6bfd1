import type { TensorInfo } from '@tensorflow/tfjs';
import { sizeOf } from '../../../shapes.js';
import { geluOp, swiGLUOp } from '../../ops/activation.js';
import { type AttentionAttributes, attentionOp, cacheWriteOp, rotaryOp } from '../../ops/attention.js';
import { dropoutOp } from '../../ops/dropout.js';
import { frozenConv2dOp } from '../../ops/frozen.js';
import { linearOp } from '../../ops/linear.js';
import { crossEntropyOp, embeddingOp, nearestCodeOp } from '../../ops/lookup.js';
import { groupNormOp, layerNormOp, rmsNormOp } from '../../ops/normalization.js';
import { adamWLists, adamWOp } from '../../ops/optimizer.js';
import type { WasmBackend } from '../backend.js';
import { dense, matmul } from './matmul.js';
import { implement } from './register.js';

/** The cost of an exponential, or of one element of a normalization, in elementary operations. */
const EXP = 10;

/** Addresses of tensors, in order. */
const at = (backend: WasmBackend, ...tensors: TensorInfo[]) =>
  tensors.map((tensor) => backend.address(tensor));

/** Runs a kernel over all elements: a result of the first tensor's shape, for `cost` operations an element. */
function elementwise(
  backend: WasmBackend,
  kernel: string,
  tensors: TensorInfo[],
  cost: number,
  ...rest: number[]
): TensorInfo {
  const n = sizeOf(tensors[0].shape);
  const y = backend.output(tensors[0].shape);
  backend.pool.run(kernel, n * cost, n, ...at(backend, ...tensors, y), ...rest);
  return y;
}

function registerElementwise(): void {
  implement(geluOp, ({ x }, _, backend) => elementwise(backend, 'gelu', [x], 2 * EXP));
  implement(geluOp.backward, ({ dy, x }, _, backend) => elementwise(backend, 'geluGrad', [dy, x], 3 * EXP));
  implement(swiGLUOp, ({ gate, value }, _, backend) => elementwise(backend, 'swiglu', [gate, value], EXP));
  implement(swiGLUOp.backward, ({ dy, gate, value }, _, backend) => {
    const n = sizeOf(dy.shape);
    const gradients = [backend.output(dy.shape), backend.output(dy.shape)];
    backend.pool.run('swigluGrad', n * EXP, n, ...at(backend, dy, gate, value, ...gradients));
    return gradients;
  });
  implement(dropoutOp, ({ x }, { rate, seed }, backend) =>
    elementwise(backend, 'dropout', [x], EXP, ...dropoutArguments(rate), seed),
  );
  implement(frozenConv2dOp.backward, ({ dy, y }, _, backend) => elementwise(backend, 'reluGrad', [dy, y], 1));
}

function registerNormalization(): void {
  const rowNorm = (
    backend: WasmBackend,
    [x, weight, bias]: TensorInfo[],
    epsilon: number,
    rms: 0 | 1,
  ): TensorInfo => {
    const d = weight.shape[0];
    const rows = sizeOf(x.shape) / d;
    const y = backend.output(x.shape);
    const addresses = [...at(backend, x, weight), bias ? backend.address(bias) : 0, backend.address(y)];
    backend.pool.run('rowNorm', rows * d * EXP, rows, d, ...addresses, epsilon, rms);
    return y;
  };
  const rowNormGrad = (
    backend: WasmBackend,
    [dy, x, weight]: TensorInfo[],
    epsilon: number,
    rms: 0 | 1,
  ): TensorInfo[] => {
    const d = weight.shape[0];
    const rows = sizeOf(x.shape) / d;
    const [dx, dweight] = [backend.output(x.shape), backend.output([d])];
    const dbias = rms ? undefined : backend.output([d]);
    const stats = backend.allocate(rows * 8);
    const work = rows * d * EXP;
    backend.pool.run('rowNormGrad', work, rows, d, ...at(backend, dy, x, weight, dx), stats, epsilon, rms);
    const sums = [backend.address(dweight), dbias ? backend.address(dbias) : 0];
    backend.pool.run('rowNormGradWeight', work, rows, d, ...at(backend, dy, x), stats, ...sums);
    backend.free(stats);
    return dbias ? [dx, dweight, dbias] : [dx, dweight];
  };
  implement(layerNormOp, ({ x, weight, bias }, { epsilon }, backend) =>
    rowNorm(backend, [x, weight, bias], epsilon, 0),
  );
  implement(layerNormOp.backward, ({ dy, x, weight }, { epsilon }, backend) =>
    rowNormGrad(backend, [dy, x, weight], epsilon, 0),
  );
  implement(rmsNormOp, ({ x, weight }, { epsilon }, backend) => rowNorm(backend, [x, weight], epsilon, 1));
  implement(rmsNormOp.backward, ({ dy, x, weight }, { epsilon }, backend) =>
    rowNormGrad(backend, [dy, x, weight], epsilon, 1),
  );

  implement(groupNormOp, ({ x, weight, bias }, { groups, epsilon }, backend) => {
    const [batch, height, width, channels] = x.shape;
    const y = backend.output(x.shape);
    const stats = backend.allocate(batch * groups * 8);
    const sizes = [batch, height * width, channels, groups];
    backend.pool.run(
      'groupNorm',
      sizeOf(x.shape) * EXP,
      ...sizes,
      ...at(backend, x, weight, bias, y),
      stats,
      epsilon,
    );
    backend.free(stats);
    return y;
  });
  implement(groupNormOp.backward, ({ dy, x, weight }, { groups, epsilon }, backend) => {
    const [batch, height, width, channels] = x.shape;
    const [dx, dweight, dbias] = [x.shape, [channels], [channels]].map((shape) => backend.output(shape));
    const stats = backend.allocate(batch * groups * 8);
    const sizes = [batch, height * width, channels, groups];
    const work = sizeOf(x.shape) * EXP;
    backend.pool.run('groupNorm', work, ...sizes, ...at(backend, x, weight), 0, 0, stats, epsilon);
    backend.pool.run(
      'groupNormGrad',
      work,
      ...sizes,
      ...at(backend, dy, x, weight),
      stats,
      backend.address(dx),
    );
    backend.pool.run(
      'groupNormGradWeight',
      work,
      ...sizes,
      ...at(backend, dy, x),
      stats,
      ...at(backend, dweight, dbias),
    );
    backend.free(stats);
    return [dx, dweight, dbias];
  });
}

/** ⌊rate·2³²⌋ and 1/(1 − rate): the arguments of every kernel with dropout. */
const dropoutArguments = (rate: number): [number, number] => [Math.floor(rate * 2 ** 32), 1 / (1 - rate)];

function registerAttention(): void {
  implement(rotaryOp, ({ x, cos, sin }, { inverse }, backend) => {
    const [batch, tokens, heads, width] = x.shape;
    const y = backend.output(x.shape);
    const sizes = [batch * tokens, tokens, heads, width];
    const sign = inverse ? -1 : 1;
    backend.pool.run(
      'rotary',
      sizeOf(x.shape) * 2,
      ...sizes,
      ...at(backend, x, cos, sin),
      sign,
      backend.address(y),
    );
    return y;
  });

  const shared = (
    { pool }: WasmBackend,
    q: TensorInfo,
    { causal, keyLength, dropout, seed }: AttentionAttributes,
  ) => {
    const [, queries, , width] = q.shape;
    const bytes = pool.ask('attentionScratch', queries, keyLength);
    const drop = [...dropoutArguments(dropout), seed];
    return [1 / Math.sqrt(width), causal ? 1 : 0, ...drop, pool.scratchFor(bytes), bytes];
  };
  implement(attentionOp, ({ q, k, v }, attributes, backend) => {
    const [batch, queries, heads, width] = q.shape;
    const { keyLength } = attributes;
    const y = backend.output(q.shape);
    const sizes = [batch, heads, queries, keyLength, k.shape[1], width];
    const work = 2 * batch * heads * queries * keyLength * (width + EXP);
    backend.pool.run(
      'attention',
      work,
      ...sizes,
      ...at(backend, q, k, v, y),
      ...shared(backend, q, attributes),
    );
    return y;
  });
  implement(attentionOp.backward, ({ dy, q, k, v }, attributes, backend) => {
    const [batch, queries, heads, width] = q.shape;
    const length = k.shape[1];
    const results = [q, k, v].map(({ shape }) => backend.output(shape));
    const sizes = [batch, heads, queries, length, width];
    const work = 5 * batch * heads * queries * length * (width + EXP);
    const addresses = at(backend, dy, q, k, v, ...results);
    backend.pool.run('attentionGrad', work, ...sizes, ...addresses, ...shared(backend, q, attributes));
    return results;
  });

  implement(cacheWriteOp, ({ cache, update }, { position }, backend) => {
    const [batch, rows, heads, width] = cache.shape;
    const added = update.shape[1] * heads * width;
    const sizes = [1, batch, 1, 1, 1, added];
    const from = [backend.address(update), 0, added, 0, 0, 0, 1];
    const to = [backend.address(cache) + position * heads * width * 4, 0, rows * heads * width, 0, 0, 0, 1];
    backend.pool.run('copy', 0, ...sizes, ...from, ...to);
    return backend.output([0]);
  });
}

function registerLookup(): void {
  implement(embeddingOp, ({ weight, indices }, _, backend) => {
    const d = weight.shape[1];
    const rows = sizeOf(indices.shape);
    const y = backend.output([...indices.shape, d]);
    backend.pool.run('embedding', rows * d, rows, d, ...at(backend, weight, indices, y));
    return y;
  });
  implement(embeddingOp.backward, ({ dy, indices }, { rows: entries }, backend) => {
    const rows = sizeOf(indices.shape);
    const d = sizeOf(dy.shape) / rows;
    const dweight = backend.output([entries, d]);
    backend.pool.run(
      'embeddingGrad',
      (rows + entries) * d,
      rows,
      d,
      entries,
      ...at(backend, dy, indices, dweight),
    );
    return dweight;
  });
  implement(crossEntropyOp, ({ logits, targets }, _, backend) => {
    const [rows, n] = logits.shape;
    const y = backend.output([rows]);
    backend.pool.run('crossEntropy', rows * n * EXP, rows, n, ...at(backend, logits, targets, y));
    return y;
  });
  implement(crossEntropyOp.backward, ({ dy, logits, targets }, _, backend) => {
    const [rows, n] = logits.shape;
    const dlogits = backend.output(logits.shape);
    backend.pool.run(
      'crossEntropyGrad',
      rows * n * EXP,
      rows,
      n,
      ...at(backend, dy, logits, targets, dlogits),
    );
    return dlogits;
  });
  implement(nearestCodeOp, ({ z, codebook }, _, backend) => {
    const [[rows, d], entries] = [z.shape, codebook.shape[0]];
    const indices = backend.output([rows], 'int32');
    const [products, norms] = [backend.allocate(rows * entries * 4), backend.allocate(entries * 4)];
    const [zAt, codebookAt] = at(backend, z, codebook);
    matmul(
      backend,
      [1, rows, entries, d],
      dense(zAt, rows, d),
      dense(codebookAt, entries, d, true),
      products,
    );
    backend.pool.run('squaredNorms', entries * d, entries, d, codebookAt, norms);
    backend.pool.run('nearest', rows * entries, rows, entries, products, norms, backend.address(indices));
    backend.free(products);
    backend.free(norms);
    return indices;
  });
}

function registerLinear(): void {
  implement(linearOp, ({ x, weight, bias }, _, backend) => {
    const [outputs, inputs] = weight.shape;
    const rows = sizeOf(x.shape) / inputs;
    const out = backend.output([...x.shape.slice(0, -1), outputs]);
    const [left, right] = [
      dense(backend.address(x), rows, inputs),
      dense(backend.address(weight), outputs, inputs, true),
    ];
    const offset = bias ? backend.address(bias) : 0;
    matmul(backend, [1, rows, outputs, inputs], left, right, backend.address(out), { bias: offset });
    return out;
  });
}

function registerOptimizer(): void {
  implement(adamWOp, (inputs, attributes, backend) => {
    const { lr, beta1, beta2, epsilon, weightDecay, step, gradientScale } = attributes;
    const rates = [gradientScale, beta1, beta2, 1 - beta1, 1 - beta2, epsilon, 1 - lr * weightDecay];
    const corrections = [lr / (1 - beta1 ** step), 1 / Math.sqrt(1 - beta2 ** step)];
    const [parameters, gradients, ms, vs] = adamWLists<TensorInfo>(inputs);
    return parameters.flatMap((parameter, i) => {
      const n = sizeOf(parameter.shape);
      const next = [parameter, ms[i], vs[i]].map(({ shape }) => backend.output(shape));
      const addresses = at(backend, parameter, gradients[i], ms[i], vs[i], ...next);
      backend.pool.run('adamw', n * EXP, n, ...addresses, ...rates, ...corrections);
      return next;
    });
  });
}

/** The operations of the vocabulary (src/engine/ops) that have a kernel of their own. */
export function registerVocabulary(): void {
  registerLinear();
  registerElementwise();
  registerNormalization();
  registerAttention();
  registerLookup();
  registerOptimizer();
}
