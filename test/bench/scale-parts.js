// The parts of a training step for one image on one device, for test/bench/scale.js. Bytes come from the tables in
// scale-blocks.js, FLOPs from flops.ts in src/models. tfjs keeps the inputs of gradients, and the gradients, until the end
// of the backward pass; together they are the memory of activations.

import { generatorFlops } from '../../dist/models/generator/flops.js';
import { Generator, hiddenWidth } from '../../dist/models/generator/generator.js';
import { tokenizerGeometry } from '../../dist/models/geometry.js';
import { Discriminator } from '../../dist/models/tokenizer/discriminator.js';
import { discriminatorFlops, tokenizerFlops } from '../../dist/models/tokenizer/flops.js';
import { FROZEN_IN_STAGE_2, Tokenizer } from '../../dist/models/tokenizer/tokenizer.js';
import {
  BF16,
  bytesOf,
  CONVNEXT,
  CONVOLUTION,
  ELEMENTWISE,
  generatorBlock,
  generatorEnds,
  tokenizerBlock,
  VGG16,
} from './scale-blocks.js';

/** Bytes per number of weights, gradients and moments, and of everything between convolutions. */
export const FLOAT = 4;

const sizeOf = (parameters, wanted = () => true) =>
  [...parameters].reduce((sum, p) => sum + (!p.buffer && wanted(p) ? p.size : 0), 0);
/** Whether a bfloat16 copy of a parameter is kept, as for the matrices of linear layers; biases are small. */
const isCopied = ({ name, shape }) =>
  shape.length === 2 && /weight$/.test(name) && !/embeddings?\.weight$/.test(name);
const sumOf = (operations, wanted = () => true) =>
  [...operations].reduce((sum, [name, count]) => sum + (wanted(name) ? count : 0), 0);
/** The products of queries and keys and of weights and values, forward. */
const attentionOperations = (positions, width) => 4 * positions * positions * width;

/** A part of a step with `positions` positions: bytes moved forward and backward, and bytes that each pass leaves in memory. */
function part({ forward, backward }, positions, widths) {
  const [a, b] = [bytesOf(forward, widths), bytesOf(backward, widths)];
  const times = (n) => positions * n;
  return {
    forward: { moved: times(a.moved), scores: times(a.scores) },
    backward: { moved: times(b.moved), scores: times(b.scores) },
    kept: times(a.kept),
    gradients: times(b.kept),
  };
}

/** A stack of equal blocks. `again`: how often its gradient recomputes attention's products. */
function stack({ positions, width, layers, operations, again, block }, widths) {
  const { atOnce } = block;
  return {
    operations,
    attention: again * layers * attentionOperations(positions, width),
    ...part(block, layers * positions, widths),
    layers,
    atOnce: bytesOf([['', {}, atOnce]], widths).kept * positions,
    /** With checkpointing: the residual stream at each block, and as much for its gradient. */
    input: layers * positions * width * FLOAT,
  };
}

/**
 * The gradient of attention recomputes the scores, one of the two products of the forward pass. PyTorch's flash attention
 * also repeats the forward pass before that.
 */
const AGAIN = { own: 0.5, flash: 1.5 };

/** The generator's step. `widths`: BF16 with our own kernels on CUDA, or FLOAT32 on a CPU. */
export function generatorStep(config, widths = BF16) {
  const { width, layers, heads, dropout } = config.generator;
  const { prefix_tokens, grid, tokens } = tokenizerGeometry(config.tokenizer);
  const { codebook_size } = config.tokenizer;
  const sizes = { ...config.generator, codebook_size, prefix_tokens, grid };
  const hidden = hiddenWidth(width);
  const n = tokens + 1;
  const drops = dropout > 0;
  const operations = generatorFlops(sizes);
  const block = generatorBlock({
    width,
    hidden,
    dropout: drops,
    scores: drops ? heads * 8 * Math.ceil(n / 8) : 0,
  });
  const again = drops || widths !== BF16 ? AGAIN.own : AGAIN.flash;
  const all = { positions: n, width, layers, operations: operations.get('blocks'), again, block };
  const { parameters } = new Generator(sizes);
  return {
    parameters: sizeOf(parameters),
    trained: sizeOf(parameters),
    copied: sizeOf(parameters, isCopied),
    stacks: [stack(all, widths)],
    ends: part(generatorEnds({ width, codes: codebook_size, dropout: drops }), n, widths),
    operations: operations.get('output'),
    operations32: 0,
    networks: 0,
  };
}

/** 3×3 convolutions of VGG-16: FLOPs and outputs, forward. */
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

/** Outputs of the discriminator's layers for one image. */
function discriminatorMade({ hidden_channels, stages }, side) {
  let made = 2 * side ** 2 * hidden_channels;
  for (let i = 0; i < stages; i++) {
    const channels = hidden_channels * 2 ** i;
    made += (side / 2 ** i) ** 2 * channels + 3 * (side / 2 ** (i + 1)) ** 2 * channels;
  }
  return made;
}

/** Numbers in outputs and in their gradients, float32, and the bytes that are moved for each. */
function ends(made, { forward, backward }) {
  const moved = (rows) => ({ moved: made * bytesOf(rows, BF16).moved, scores: 0 });
  return { forward: moved(forward), backward: moved(backward), kept: FLOAT * made, gradients: FLOAT * made };
}

const together = (a, b) => ({
  forward: { moved: a.forward.moved + b.forward.moved, scores: 0 },
  backward: { moved: a.backward.moved + b.backward.moved, scores: 0 },
  kept: a.kept + b.kept,
  gradients: a.gradients + b.gradients,
});

/** A tokenizer's steps in one phase; with an adversary, `adversary` is the network whose turn it is. */
export function tokenizerStep(config, stage, { w_lpips, w_perc }, adversary) {
  const geometry = tokenizerGeometry(config.tokenizer);
  const { image_size, grid, tokens, codebook_size, encoder, decoder } = geometry;
  const { parameters: all } = new Tokenizer(config.tokenizer, stage);
  const operations = tokenizerFlops(config.tokenizer, stage);
  const front = stage === 1 ? 1 : decoder.class_tokens;
  const stackOf = (name, size, positions) =>
    stack(
      {
        ...{ positions, ...size, again: AGAIN.flash, block: tokenizerBlock(size) },
        operations: operations.get(`${name}.transformer`),
      },
      BF16,
    );
  const encoding = stackOf('encoder', encoder, grid * grid + tokens);
  const decoding = stackOf('decoder', decoder, front + tokens);
  const d = new Discriminator(config.discriminator).parameters;
  const judged = {
    operations: sumOf(discriminatorFlops(config.discriminator, image_size)),
    made: discriminatorMade(config.discriminator, image_size),
  };
  const { forward, byInput, byWeight } = CONVOLUTION;
  const nothing = { operations: 0, made: 0 };
  const [lpips, classifier] = [w_lpips > 0 ? vgg16(image_size) : nothing, w_perc > 0 ? convNeXt() : nothing];
  // With perceptual auxiliary terms the networks judge a second image, the stitched one.
  const judgedImages = stage === 1 && config.tokenizer_training.aux_perceptual ? 2 : 1;
  const parameters = sizeOf(all);
  const isTrained = (p) => stage === 1 || !FROZEN_IN_STAGE_2.test(p.name);
  const trained = sizeOf(all, isTrained);
  const others = sumOf(operations, (name) => !/transformer|^quantize/.test(name));
  const common = {
    parameters,
    copied: sizeOf(all, isCopied),
    // Distances from every latent to every entry, without a gradient.
    forwardOnly: operations.get('quantize'),
    latents: stage === 1 && config.tokenizer_training.stage1.clustering ? tokens : 0,
    entries: codebook_size,
    tokenSize: config.tokenizer.token_size,
  };
  if (adversary === 'discriminator') {
    // Two images, one reconstructed and one real, forward and backward.
    const both = ends(2 * judged.made, { forward, backward: [...byInput, ...byWeight] });
    const drawn = encoding.forward.moved + decoding.forward.moved;
    return {
      ...common,
      trained: sizeOf(d),
      beside: trained,
      stacks: [],
      forwardOnly: common.forwardOnly + encoding.operations + decoding.operations + others,
      latents: 0,
      operations: 2 * judged.operations,
      ends: { ...both, forward: { moved: both.forward.moved + drawn, scores: 0 } },
      operations32: 0,
      networks: 0,
    };
  }
  const frozen = stage === 2 && { ...encoding, frozen: true };
  // The image, its patches, and what the losses compute from it.
  const image = ends(8 * 3 * image_size ** 2, {
    forward: ELEMENTWISE.slice(0, 1),
    backward: ELEMENTWISE.slice(1),
  });
  return {
    ...common,
    trained,
    beside: adversary ? sizeOf(d) : 0,
    stacks: [frozen || encoding, decoding],
    operations: others,
    ends: adversary ? together(image, ends(judged.made, { forward, backward: byInput })) : image,
    // The discriminator is frozen here: forward, and back to the image.
    inputOnly: adversary ? judged.operations : 0,
    // The networks process the image and its reconstruction; the gradient goes back to the latter.
    operations32: 3 * judgedImages * (lpips.operations + classifier.operations),
    networks: FLOAT * Math.max(lpips.made, classifier.made),
    networksMoved:
      judgedImages *
      (lpips.made * bytesOf(VGG16, BF16).moved + classifier.made * bytesOf(CONVNEXT, BF16).moved),
  };
}
