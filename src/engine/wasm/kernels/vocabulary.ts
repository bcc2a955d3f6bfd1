import type { TensorInfo } from '@tensorflow/tfjs';
import { type AdamWAttributes, adamWLists } from '../../ops/index.js';
import type { WasmBackend } from '../backend.js';
import { dense, matmul } from './matmul.js';
import { register, sizeOf } from './register.js';

/** How many elementary operations an exponential, or one element of a normalization, is worth. */
const EXP = 10;

/** Addresses of tensors, in order. */
const at = (backend: WasmBackend, ...tensors: TensorInfo[]) =>
  tensors.map((tensor) => backend.address(tensor));

/** A kernel over all elements: outputs of the first input's shape, `cost` operations an element. */
function elementwise(
  name: string,
  kernel: string,
  inputNames: string[],
  outputs: number,
  cost: number,
): void {
  register(name, (inputs, _, backend) => {
    const tensors = inputNames.map((key) => inputs[key]);
    const n = sizeOf(tensors[0].shape);
    const results = Array.from({ length: outputs }, () => backend.output(tensors[0].shape));
    backend.pool.run(kernel, n * cost, n, ...at(backend, ...tensors, ...results));
    return outputs === 1 ? results[0] : results;
  });
}

function registerNormalization(): void {
  type Epsilon = { epsilon: number };
  for (const [name, rms] of [
    ['alitok.LayerNorm', 0],
    ['alitok.RMSNorm', 1],
  ] as const) {
    register<Epsilon>(name, ({ x, weight, bias }, { epsilon }, backend) => {
      const d = weight.shape[0];
      const rows = sizeOf(x.shape) / d;
      const y = backend.output(x.shape);
      const addresses = [...at(backend, x, weight), bias ? backend.address(bias) : 0, backend.address(y)];
      backend.pool.run('rowNorm', rows * d * EXP, rows, d, ...addresses, epsilon, rms);
      return y;
    });
    register<Epsilon>(`${name}Grad`, ({ dy, x, weight }, { epsilon }, backend) => {
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
    });
  }

  type Groups = Epsilon & { groups: number };
  register<Groups>('alitok.GroupNorm', ({ x, weight, bias }, { groups, epsilon }, backend) => {
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
  register<Groups>('alitok.GroupNormGrad', ({ dy, x, weight }, { groups, epsilon }, backend) => {
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

/** rate·2³² floored, and 1/(1 − rate), as every dropout takes them. */
const dropoutArguments = (rate: number): [number, number] => [Math.floor(rate * 2 ** 32), 1 / (1 - rate)];

function registerAttention(): void {
  type Rotary = { inverse: boolean };
  register<Rotary>('alitok.Rotary', ({ x, cos, sin }, { inverse }, backend) => {
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

  type Attributes = { causal: boolean; keyLength: number; dropout: number; seed: number };
  const shared = ({ pool }: WasmBackend, q: TensorInfo, { causal, keyLength, dropout, seed }: Attributes) => {
    const [, queries, , width] = q.shape;
    const bytes = pool.ask('attentionScratch', queries, keyLength);
    const drop = [...dropoutArguments(dropout), seed];
    return [1 / Math.sqrt(width), causal ? 1 : 0, ...drop, pool.scratchFor(bytes), bytes];
  };
  register<Attributes>('alitok.Attention', ({ q, k, v }, attributes, backend) => {
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
  register<Attributes>('alitok.AttentionGrad', ({ dy, q, k, v }, attributes, backend) => {
    const [batch, queries, heads, width] = q.shape;
    const length = k.shape[1];
    const results = [q, k, v].map(({ shape }) => backend.output(shape));
    const sizes = [batch, heads, queries, length, width];
    const work = 5 * batch * heads * queries * length * (width + EXP);
    const addresses = at(backend, dy, q, k, v, ...results);
    backend.pool.run('attentionGrad', work, ...sizes, ...addresses, ...shared(backend, q, attributes));
    return results;
  });

  register<{ position: number }>('alitok.CacheWrite', ({ cache, update }, { position }, backend) => {
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
  register('alitok.Embedding', ({ weight, indices }, _, backend) => {
    const d = weight.shape[1];
    const rows = sizeOf(indices.shape);
    const y = backend.output([...indices.shape, d]);
    backend.pool.run('embedding', rows * d, rows, d, ...at(backend, weight, indices, y));
    return y;
  });
  register<{ rows: number }>('alitok.EmbeddingGrad', ({ dy, indices }, { rows: entries }, backend) => {
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
  register('alitok.CrossEntropy', ({ logits, targets }, _, backend) => {
    const [rows, n] = logits.shape;
    const y = backend.output([rows]);
    backend.pool.run('crossEntropy', rows * n * EXP, rows, n, ...at(backend, logits, targets, y));
    return y;
  });
  register('alitok.CrossEntropyGrad', ({ dy, logits, targets }, _, backend) => {
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
  register('alitok.NearestCode', ({ z, codebook }, _, backend) => {
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

/** The project's op vocabulary (src/engine/ops), each one kernel. */
export function registerVocabulary(): void {
  elementwise('alitok.Gelu', 'gelu', ['x'], 1, 2 * EXP);
  elementwise('alitok.GeluGrad', 'geluGrad', ['dy', 'x'], 1, 3 * EXP);
  elementwise('alitok.SwiGLU', 'swiglu', ['gate', 'value'], 1, EXP);
  elementwise('alitok.SwiGLUGrad', 'swigluGrad', ['dy', 'gate', 'value'], 2, EXP);
  register<{ rate: number; seed: number }>('alitok.Dropout', ({ x }, { rate, seed }, backend) => {
    const n = sizeOf(x.shape);
    const y = backend.output(x.shape);
    backend.pool.run('dropout', n * EXP, n, ...at(backend, x, y), ...dropoutArguments(rate), seed);
    return y;
  });
  register<AdamWAttributes>('alitok.AdamW', (inputs, attributes, backend) => {
    const { lr, beta1, beta2, epsilon, weightDecay, step, gradientScale } = attributes;
    const rates = [gradientScale, beta1, beta2, 1 - beta1, 1 - beta2, epsilon, 1 - lr * weightDecay];
    const corrections = [lr / (1 - beta1 ** step), 1 / Math.sqrt(1 - beta2 ** step)];
    const [parameters, gradients, ms, vs] = adamWLists(inputs);
    return parameters.flatMap((parameter, i) => {
      const n = sizeOf(parameter.shape);
      const next = [parameter, ms[i], vs[i]].map(({ shape }) => backend.output(shape));
      const addresses = at(backend, parameter, gradients[i], ms[i], vs[i], ...next);
      backend.pool.run('adamw', n * EXP, n, ...addresses, ...rates, ...corrections);
      return next;
    });
  });
  registerNormalization();
  registerAttention();
  registerLookup();
}
