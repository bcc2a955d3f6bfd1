// Memory traffic of the operations of a training step, in numbers per position of the sequence, for test/bench/scale.js.
// Counted by hand from src/models and src/engine/ops, whose gradients define the backward pass, and from the kernels
// behind them in src/engine/libtorch/kernels and native/cuda.
//
// A row is [operation, reads, writes, flags]. Numbers are
//   half   outputs of layers, and their gradients: bfloat16
//   full   the residual stream, its gradients, and everything that must be exact: float32
// A kernel that reads a row of a tensor twice in succession finds it in a cache, so it counts once. Views cost nothing.
// Outputs stay in memory until the end of the backward pass, since tfjs keeps the inputs of gradients, and the gradients.
// Flags:
//   gone     the output is freed at the end of its kernel or of the forward pass, or it is written in place
//   cuda     not needed on a CPU in float32: it only changes the dtype, or makes up for something that a kernel lacks
//   scores   reads or writes attention's scores, one number for each query, key and head
const GONE = { gone: true };
const CUDA = { cuda: true };
const SCORES = { scores: true };
const GONE_SCORES = { gone: true, scores: true };

/** Bytes per number on CUDA devices with `--precision bf16` and our own kernels, and on a CPU in float32. */
export const BF16 = { half: 2, full: 4 };
export const FLOAT32 = { half: 4, full: 4 };

/** Bytes that rows move, without and with attention's scores, and bytes that stay in memory. */
export function bytesOf(rows, { half, full }) {
  const bytes = (numbers) => half * (numbers.half ?? 0) + full * (numbers.full ?? 0);
  const total = { moved: 0, scores: 0, kept: 0 };
  for (const [, reads, writes, { gone, cuda, scores } = {}] of rows) {
    if (cuda && half === full) continue;
    total[scores ? 'scores' : 'moved'] += bytes(reads) + bytes(writes);
    if (!gone) total.kept += bytes(writes);
  }
  return total;
}

/**
 * Attention with q, k and v of `d` numbers each, and with `scores` per query if it has dropout. Matrix products need the
 * rows of each head to be contiguous, and those of keys and values padded to a multiple of 8. normRotary writes q like this;
 * k, v and dy are copied. Without dropout it is PyTorch's flash attention, whose gradient begins with the forward pass; no
 * scores are in memory.
 * `atOnce`: peak memory of the gradient besides its results.
 */
function attention(d, scores) {
  if (scores === 0)
    return {
      forward: [['flash attention', { half: 3 * d }, { half: d }]],
      backward: [
        ['flash attention again', { half: 3 * d }, { half: d }, GONE],
        ['its gradient by q, k, v, from them, dy and y', { half: 5 * d }, { half: 3 * d }],
      ],
      atOnce: { half: d },
    };
  return {
    forward: [
      ['q·kᵀ', { half: 2 * d }, { half: scores }, GONE_SCORES],
      ['softmax, mask and dropout, in place', { half: scores }, { half: scores }, GONE_SCORES],
      ['k and v, heads first', { half: 2 * d }, { half: 2 * d }, GONE],
      ['weights by v', { half: scores + d }, { half: d }, SCORES],
      ['heads of a position together', { half: d }, { half: d }],
    ],
    backward: [
      ['q·kᵀ again', { half: 2 * d }, { half: scores }, GONE_SCORES],
      ['dy, k and v, heads first', { half: 3 * d }, { half: 3 * d }, GONE],
      ['dy·vᵀ', { half: 2 * d }, { half: scores }, GONE_SCORES],
      ['weights and their gradient, both in place', { half: 2 * scores }, { half: 2 * scores }, GONE_SCORES],
      ['dv: weights by dy', { half: scores + d }, { half: d }, SCORES],
      ['dq: gradient by k', { half: scores + d }, { half: d }, SCORES],
      ['dk: gradient by q', { half: scores + d }, { half: d }, SCORES],
    ],
    atOnce: { half: 2 * scores + 3 * d },
  };
}

/** From dy, the gradient of the residual stream, to the gradient of a layer's output. */
const back = (d, dropout) =>
  dropout ? ['dropout, rounded', { full: d }, { half: d }] : ['dy, rounded', { full: d }, { half: d }, CUDA];

/** A layer's gradients: dx = dy·W, and dW = dyᵀ·x, which is counted in the other tables. dy is read for both. */
const layer = (name, inputs, outputs) => [name, { half: 2 * outputs + inputs }, { half: inputs }];

/** A block of the generator (models/generator/generator.ts), `hidden` numbers wide within its SwiGLU. */
export function generatorBlock({ width: d, hidden: h, dropout, scores }) {
  const { forward, backward, atOnce } = attention(d, scores);
  // A tensor that only dropout reads is not kept for a gradient.
  const projection = dropout ? GONE : {};
  const drops = dropout ? [['dropout', { half: d }, { half: d }]] : [];
  return {
    forward: [
      ['norm1', { full: d }, { half: d }],
      ['qkv', { half: d }, { half: 3 * d }],
      ['norm and rotation of q and k', { half: 2 * d }, { half: 2 * d }],
      ...forward,
      ['proj', { half: d }, { half: d }, projection],
      ...drops,
      ['add', { half: d, full: d }, { full: d }],
      ['norm2', { full: d }, { half: d }],
      ['w1 and w3', { half: 2 * d }, { half: 2 * h }],
      ['SwiGLU', { half: 2 * h }, { half: h }],
      ['w2', { half: h }, { half: d }, projection],
      ...drops,
      ['add', { half: d, full: d }, { full: d }],
    ],
    backward: [
      back(d, dropout),
      layer('w2', h, d),
      ['SwiGLU', { half: 3 * h }, { half: 2 * h }],
      layer('w1', d, h),
      layer('w3', d, h),
      ['sum of both', { half: 2 * d }, { half: d }],
      ['norm2', { half: d, full: d }, { full: d }],
      ['sum with dy', { full: 2 * d }, { full: d }],
      ['bias of proj', dropout ? { half: d } : { full: d }, {}],
      back(d, dropout),
      layer('proj', d, d),
      ...backward,
      ['norm and rotation of q and k', { half: 4 * d }, { half: 2 * d }],
      ['q, k and v together', { half: 3 * d }, { half: 3 * d }],
      ['bias of qkv', { half: 3 * d }, {}],
      layer('qkv', d, 3 * d),
      ['norm1', { half: d, full: d }, { full: d }],
      ['sum with dy', { full: 2 * d }, { full: d }],
    ],
    atOnce,
  };
}

/** A block of the tokenizer (models/tokenizer/transformer.ts), whose MLP is four times as wide. */
export function tokenizerBlock({ width: d }) {
  const { forward, backward, atOnce } = attention(d, 0);
  return {
    forward: [
      ['ln_1', { full: d }, { half: d }],
      ['in_proj', { half: d }, { half: 3 * d }],
      ...forward,
      ['out_proj', { half: d }, { half: d }],
      ['add', { half: d, full: d }, { full: d }],
      ['ln_2', { full: d }, { half: d }],
      ['c_fc', { half: d }, { half: 4 * d }],
      ['GELU', { half: 4 * d }, { half: 4 * d }],
      ['c_proj', { half: 4 * d }, { half: d }],
      ['add', { half: d, full: d }, { full: d }],
    ],
    backward: [
      ['bias of c_proj', { full: d }, {}],
      back(d, false),
      layer('c_proj', 4 * d, d),
      ['GELU', { half: 8 * d }, { half: 4 * d }],
      ['bias of c_fc', { half: 4 * d }, {}],
      layer('c_fc', d, 4 * d),
      ['ln_2', { half: d, full: d }, { full: d }],
      ['sum with dy', { full: 2 * d }, { full: d }],
      ['bias of out_proj', { full: d }, {}],
      back(d, false),
      layer('out_proj', d, d),
      ...backward,
      ['q, k and v together', { half: 3 * d }, { half: 3 * d }],
      ['bias of in_proj', { half: 3 * d }, {}],
      layer('in_proj', d, 3 * d),
      ['ln_1', { half: d, full: d }, { full: d }],
      ['sum with dy', { full: 2 * d }, { full: d }],
    ],
    atOnce,
  };
}

/** The generator before and after its blocks: embeddings, and logits of n codes with their loss. */
export function generatorEnds({ width: d, codes: n, dropout }) {
  return {
    forward: [
      ['embeddings', { full: d }, { full: d }, dropout ? GONE : {}],
      ...(dropout ? [['dropout', { full: d }, { full: d }]] : []),
      ['norm', { full: d }, { half: d }],
      ['output', { half: d }, { half: n }],
      ['logits in float32, for the accuracy', { half: n }, { full: n }, { ...GONE, ...CUDA }],
      ['the largest', { full: n }, {}],
      ['logits but the last position’s', { half: n }, { half: n }],
      ['in float32', { half: n }, { full: n }, CUDA],
      ['log-softmax', { full: n }, { full: n }, GONE],
    ],
    backward: [
      ['softmax', { full: n }, { full: n }, GONE],
      ['less one at the code', { full: n }, { full: n }, GONE],
      ['by the loss’s gradient', { full: n }, { full: n }],
      ['zeros for the last position', {}, { full: n }, GONE],
      ['and the others', { full: n }, { full: n }],
      ['bias of output', { full: n }, {}],
      ['rounded for products', { full: n }, { half: n }, CUDA],
      layer('output', d, n),
      ['norm', { half: d, full: d }, { full: d }],
      ...(dropout ? [['dropout', { full: d }, { full: d }]] : []),
      ['embeddings', { full: d }, {}],
    ],
  };
}

/**
 * With convolutions, everything between operations is float32, and tables count per number of the output.
 * A layer of the discriminator (models/tokenizer/discriminator.ts), with the same number of inputs and outputs.
 */
export const CONVOLUTION = {
  forward: [
    ['x, rounded', { full: 1 }, { half: 1 }, { ...GONE, ...CUDA }],
    ['convolution', { half: 1 }, { half: 1 }, GONE],
    ['in float32', { half: 1 }, { full: 1 }],
    ['bias', { full: 1 }, { full: 1 }],
  ],
  byInput: [
    ['dy, rounded', { full: 1 }, { half: 1 }, { ...GONE, ...CUDA }],
    ['gradient by x', { half: 1 }, { half: 1 }, GONE],
    ['in float32', { half: 1 }, { full: 1 }],
  ],
  byWeight: [
    ['dy and x, rounded', { full: 2 }, { half: 2 }, { ...GONE, ...CUDA }],
    ['gradient by the weight', { half: 2 }, {}],
    ['bias', { full: 1 }, {}],
  ],
};

/** Elementwise operations in float32, as between an image and its losses. */
export const ELEMENTWISE = [
  ['forward', { full: 1 }, { full: 1 }],
  ['backward, which reads dy and x', { full: 2 }, { full: 1 }],
];

/** Frozen networks process two images, and the gradient goes back to one. Both passes are float32 throughout. */
const twice = (rows) => [...rows, ...rows];
export const VGG16 = [
  ...twice([
    ['convolution', { full: 1 }, { full: 1 }],
    ['ReLU', { full: 1 }, { full: 1 }],
  ]),
  ['gradient of ReLU', { full: 2 }, { full: 1 }],
  ['gradient by x', { full: 1 }, { full: 1 }],
];
export const CONVNEXT = [
  ...twice([['an operation', { full: 1 }, { full: 1 }]]),
  ['its gradient, which reads dy and x', { full: 2 }, { full: 1 }],
];

/** AdamW and the operations before and after it, per weight (src/train/step/optimization.ts, kernels/optimizer.ts). */
export const OPTIMIZER = [
  ['norm of the gradient', { full: 1 }, {}],
  // PyTorch's AdamW would write the scale into the gradients; ours on the CPU applies it in the same kernel.
  ['mean and clipping', { full: 1 }, { full: 1 }, CUDA],
  ['AdamW: weight, gradient, two moments', { full: 4 }, { full: 3 }],
];
export const ROUNDED_COPY = [['rounded for products', { full: 1 }, { half: 1 }, CUDA]];

/**
 * A weight in one micro-batch: forward, backward, and its gradient, which products return in float32 since PyTorch 2.8
 * (4 bytes more in earlier versions).
 */
export const WEIGHT = {
  product: [['read', { half: 1 }, {}]],
  gradient: [['written', {}, { full: 1 }]],
  accumulated: [['added to the sum', { full: 2 }, { full: 1 }]],
};
