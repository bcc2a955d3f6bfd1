// What a training step is made of, for one image on one device: for test/bench/scale.js. Counted by hand from src/models
// and src/engine/ops: which tensors a block makes and which of them have a gradient. tfjs keeps both until the backward
// pass is over, so they are what activations take. FLOPs are those of src/models/operations.ts.
import { dropoutFactors } from '../../dist/engine/libtorch/kernels/dropout.js';
import { Discriminator, POOLED } from '../../dist/models/discriminator.js';
import { Generator, hiddenWidth } from '../../dist/models/generator.js';
import { tokenizerGeometry } from '../../dist/models/geometry.js';
import {
  discriminatorOperations,
  generatorOperations,
  tokenizerOperations,
} from '../../dist/models/operations.js';
import { FROZEN_IN_STAGE_2, Tokenizer } from '../../dist/models/tokenizer.js';

export const FLOAT = 4;

const sizeOf = (parameters, wanted = () => true) =>
  [...parameters].reduce((sum, p) => sum + (!p.buffer && wanted(p) ? p.size : 0), 0);
const sumOf = (operations, wanted = () => true) =>
  [...operations].reduce((sum, [name, count]) => sum + (wanted(name) ? count : 0), 0);
/** Queries by keys and weights by values, forward. */
const attentionOperations = (positions, width) => 4 * positions * positions * width;

/**
 * Bytes that the mask of one element takes where dropout is composed of PyTorch's operators, as on CUDA: read and
 * written in all, and of results that live until the kernel ends. Counted by running the very function.
 */
export function maskBytes() {
  const bytes = { moved: 0, kept: 0 };
  const sizes = [];
  const use = (name, ...args) => {
    // Whole numbers are 32 bits wide, as float32 is; a comparison gives bytes.
    const inputs = name === 'arange' ? [] : [args[0]];
    const size = name === 'ge.Scalar' ? 1 : FLOAT;
    if (name === 'reshape') return sizes.push(size) - 1; // a view
    const others = /\.Tensor$/.test(name) ? [args[1]] : [];
    bytes.moved += size + [...inputs, ...others].reduce((sum, id) => sum + sizes[id], 0);
    if (/_\./.test(name)) return args[0]; // in place
    bytes.kept += size;
    return sizes.push(size) - 1;
  };
  dropoutFactors({ use, backend: { device: 'cuda' } }, 1, 0.1, 1, [1]);
  return bytes;
}

/** A stack of equal blocks as numbers a position: results, their gradients, what goes from block to block. */
function stack({ positions, width, layers, made, gradients, operations }) {
  const attention = layers * attentionOperations(positions, width);
  const [a, b] = [layers * positions * made, layers * positions * gradients];
  return {
    operations,
    attention,
    made: a,
    gradients: b,
    /** With checkpointing: input and gradient of each block, and one block in full. */
    checkpointed: 2 * layers * positions * width + (a + b) / layers,
  };
}

/** The generator's step. */
export function generatorStep(config) {
  const { width, layers, heads, dropout } = config.generator;
  const { prefix_tokens, grid, tokens } = tokenizerGeometry(config.tokenizer);
  const { codebook_size } = config.tokenizer;
  const sizes = { ...config.generator, codebook_size, prefix_tokens, grid };
  const hidden = hiddenWidth(width);
  const n = tokens + 1;
  const drops = dropout > 0 ? 2 : 0;
  const operations = generatorOperations(sizes, hidden);
  const blocks = stack({
    ...{ positions: n, width, layers, operations: operations.get('blocks') },
    // norm, qkv, both norms and rotations, attention, proj, add; norm, w1, w3, SwiGLU, w2, add; two drops
    made: (14 + drops) * width + 3 * hidden,
    // the same, but for the adds; the split of qkv once more, and sums where two paths meet
    gradients: (18 + drops) * width + 3 * hidden,
  });
  const parameters = sizeOf(new Generator(sizes).parameters);
  const attentionMask = dropout > 0 ? heads * n * n : 0;
  return {
    parameters,
    trained: parameters,
    stacks: [blocks],
    /** Logits, their slice and the gradients of both, log-probabilities. */
    made: 3 * n * codebook_size,
    gradients: 2 * n * codebook_size,
    operations: operations.get('output'),
    /** Elements that dropout decides in one pass; attention's are those of one kernel. */
    masks: dropout > 0 ? layers * (attentionMask + 2 * n * width) + n * width : 0,
    attentionMask,
    operations32: 0,
    networks: 0,
  };
}

/** 3×3 convolutions of VGG-16: FLOPs and results, forward. */
function vgg16(side) {
  const parts = [
    [64, 64],
    [128, 128],
    [256, 256, 256],
    [512, 512, 512],
    [512, 512, 512],
  ];
  const found = { operations: 0, made: 0 };
  let inputs = 3;
  parts.forEach((channels, i) => {
    const pixels = (side / 2 ** i) ** 2;
    for (const outputs of channels) {
      found.operations += 2 * pixels * 9 * inputs * outputs;
      found.made += pixels * outputs;
      inputs = outputs;
    }
  });
  return found;
}

/** ConvNeXt-S at 224 × 224, its linear layers and large convolutions. */
function convNeXt() {
  const found = { operations: 2 * 56 ** 2 * 48 * 96, made: 56 ** 2 * 96 };
  [
    [96, 3],
    [192, 3],
    [384, 27],
    [768, 3],
  ].forEach(([width, blocks], i) => {
    const pixels = (56 / 2 ** i) ** 2;
    if (i > 0) found.operations += 2 * pixels * 2 * width * width;
    found.operations += blocks * 2 * pixels * (8 * width * width + 49 * width);
    found.made += blocks * pixels * 12 * width; // depthwise, norm, wide twice, narrow, add
  });
  return found;
}

/** Results of the discriminator's layers for one image. */
function discriminatorMade({ hidden_channels, stages }, side) {
  let made = 2 * side ** 2 * hidden_channels;
  for (let i = 0; i < stages; i++) {
    const channels = hidden_channels * 2 ** i;
    made += (side / 2 ** i) ** 2 * channels + 3 * (side / 2 ** (i + 1)) ** 2 * channels;
  }
  return made;
}

/** A tokenizer's steps in one phase; `adversary` says whose turn it is, if there is one. */
export function tokenizerStep(config, stage, { w_lpips, w_perc }, adversary) {
  const geometry = tokenizerGeometry(config.tokenizer);
  const { image_size, grid, tokens, codebook_size, encoder, decoder } = geometry;
  const { parameters: all } = new Tokenizer(config.tokenizer, stage);
  const operations = tokenizerOperations(config.tokenizer, stage);
  const front = stage === 1 ? 1 : decoder.class_tokens;
  // norm, in_proj, attention, out_proj, add, norm, four times the width twice, back, add
  const block = ({ width }) => ({ made: 18 * width, gradients: 21 * width });
  const encoding = stack({
    ...{ positions: grid * grid + tokens, ...encoder, ...block(encoder) },
    operations: operations.get('encoder.transformer'),
  });
  const decoding = stack({
    ...{ positions: front + tokens, ...decoder, ...block(decoder) },
    operations: operations.get('decoder.transformer'),
  });
  const d = new Discriminator(config.discriminator).parameters;
  const judged = {
    operations: sumOf(discriminatorOperations(config.discriminator, image_size, POOLED)),
    made: discriminatorMade(config.discriminator, image_size),
  };
  const nothing = { operations: 0, made: 0 };
  const [lpips, classifier] = [w_lpips > 0 ? vgg16(image_size) : nothing, w_perc > 0 ? convNeXt() : nothing];
  const parameters = sizeOf(all);
  const trained = sizeOf(all, (p) => stage === 1 || !FROZEN_IN_STAGE_2.test(p.name));
  const ends = sumOf(operations, (name) => !/transformer|^quantize/.test(name));
  const common = {
    parameters,
    masks: 0,
    attentionMask: 0,
    // Distances of every latent to every entry, without a gradient.
    forwardOnly: operations.get('quantize'),
    latents: stage === 1 && config.tokenizer_training.stage1.clustering ? tokens : 0,
    entries: codebook_size,
    tokenSize: config.tokenizer.token_size,
  };
  if (adversary === 'discriminator')
    return {
      ...common,
      trained: sizeOf(d),
      beside: trained,
      stacks: [],
      forwardOnly: common.forwardOnly + encoding.operations + decoding.operations + ends,
      latents: 0,
      // Two images, one drawn and one true, forward and backward.
      operations: 2 * judged.operations,
      made: 2 * judged.made,
      gradients: 2 * judged.made,
      operations32: 0,
      networks: 0,
    };
  const frozen = stage === 2 && { ...encoding, gradients: 0, frozen: true };
  return {
    ...common,
    trained,
    beside: adversary ? sizeOf(d) : 0,
    stacks: [frozen || encoding, decoding],
    operations: ends,
    // The image, its patches and what the losses make of it.
    made: 8 * 3 * image_size ** 2 + (adversary ? judged.made : 0),
    gradients: 8 * 3 * image_size ** 2 + (adversary ? judged.made : 0),
    // The discriminator is judged by, not trained: forward, and back to the image.
    inputOnly: adversary ? judged.operations : 0,
    // The networks see the image and its reconstruction, and go back to the latter.
    operations32: 3 * (lpips.operations + classifier.operations),
    networks: Math.max(lpips.made, classifier.made),
    networksMoved: lpips.made + classifier.made,
  };
}
