import * as tf from '@tensorflow/tfjs';
import * as ops from '../../engine/ops/index.js';
import { normal, ones, zeros } from '../../nn/initializers.js';
import { type Layer, linear, rmsNorm, sequence } from '../../nn/layers.js';
import type { Lora } from '../../nn/lora.js';
import { type Parameter, Parameters, type Scope } from '../../nn/parameters.js';
import type { Random } from '../../random.js';
import type { GeneratorConfig, GeneratorGeometry } from '../geometry.js';
import { rotaryTable } from './rotary-table.js';

const INIT = normal(0.02);
const HIDDEN_MULTIPLE = 256;
/** For norms and dropout between layers: an engine may keep their results in the precision of the layers' products. */
const ROUNDS = { rounds: true };

/** The table of codes and classes, by its name: the one parameter whose shape depends on the number of classes. */
export const EMBEDDINGS = 'embeddings.weight';

/** Dropout during training. */
export interface Dropout {
  rate: number;
  /** Source of the seeds: one for each place that drops, for the whole batch. */
  random: Random;
  /** Index of the first image at hand in the whole batch: an image's draws do not depend on how the batch is divided. */
  first?: number;
}

/** Keys and values of the condition and the first T − 1 codes, (B, T, H, D) for each layer. */
export interface KVCache {
  layers: { k: tf.Variable<tf.Rank.R4>; v: tf.Variable<tf.Rank.R4>; joined?: tf.Tensor }[];
  /** Whether the engine computes a step of all layers in one kernel, which needs only a position on its device. */
  fused: boolean;
  /** How many positions are filled. */
  length: number;
  dispose(): void;
}

/** Options of a forward pass in training. */
export interface TrainingPass {
  dropout?: Dropout;
  /** Keep only each block's input; the backward pass computes the block again. */
  checkpointActivations?: boolean;
}

/** State of a forward pass: the rotary rows of its positions, and dropout or a cache if there is one. */
interface Pass extends TrainingPass {
  cos: tf.Tensor2D;
  sin: tf.Tensor2D;
  cache?: KVCache;
}

/** State of a block's pass, with dropout seeds that were drawn before it runs: it may run twice. */
interface BlockPass extends Omit<Pass, 'dropout' | 'checkpointActivations'> {
  dropout?: Drops & { attention: number; projection: number; mlp: number };
}

/** The rate, and the index of the first image at hand in the whole batch. */
type Drops = Required<Pick<Dropout, 'rate' | 'first'>>;

function forBlock({ dropout, checkpointActivations: _, ...pass }: Pass): BlockPass {
  if (!dropout) return pass;
  const { rate, random, first = 0 } = dropout;
  const seeds = { attention: random.bits(), projection: random.bits(), mlp: random.bits() };
  return { ...pass, dropout: { rate, first, ...seeds } };
}

/** Dropout of x (B, …), with the draws that its images have in the whole batch. */
function drop(x: tf.Tensor, drops: Drops | undefined, seed = 0, options = {}): tf.Tensor {
  if (!drops) return x;
  return ops.dropout(x, drops.rate, ops.seedAt(seed, (drops.first * x.size) / x.shape[0]), options);
}

/** Causal self-attention with normalised, rotated queries and keys: (B, n, d) → (B, n, d). */
function attention(
  scope: Scope,
  { width, heads, headWidth }: GeneratorGeometry,
  { layer, lora }: { layer: number; lora?: Lora },
) {
  const qkv = linear(scope.at('qkv'), width, 3 * width, { init: INIT, lora });
  const qNorm = scope.at('q_norm').parameter('weight', [headWidth], ones);
  const kNorm = scope.at('k_norm').parameter('weight', [headWidth], ones);
  const proj = linear(scope.at('proj'), width, width, { init: INIT, lora });
  return (x: tf.Tensor, { cos, sin, dropout, cache }: BlockPass) => {
    const [batch, n] = x.shape;
    let [q, k, v] = tf.unstack(qkv(x).reshape([batch, n, 3, heads, headWidth]), 2) as tf.Tensor4D[]; // (B, n, H, D)
    q = ops.normRotary(q, qNorm.value, cos, sin);
    k = ops.normRotary(k, kNorm.value, cos, sin);
    let keyLength = n;
    if (cache) {
      const stored = cache.layers[layer];
      ops.cacheWrite(stored.k, k, cache.length);
      ops.cacheWrite(stored.v, v, cache.length);
      [k, v, keyLength] = [stored.k, stored.v, cache.length + n];
    }
    const weightDropout = dropout && {
      dropout: dropout.rate,
      seed: ops.seedAt(dropout.attention, dropout.first * heads * n * n),
    };
    const y = ops.attention(q, k, v, { causal: true, keyLength, ...weightDropout });
    return drop(proj(y.reshape([batch, n, width])), dropout, dropout?.projection, ROUNDS);
  };
}

/** Width between the SwiGLU's layers: ⌊8d/3⌋, rounded up to a multiple of 256. */
export function hiddenWidth(width: number): number {
  return Math.ceil(Math.floor((8 * width) / 3) / HIDDEN_MULTIPLE) * HIDDEN_MULTIPLE;
}

/** SwiGLU: w2(silu(w1 x)·w3 x), without biases. */
function mlp(scope: Scope, width: number, lora?: Lora): Layer {
  const hidden = hiddenWidth(width);
  const options = { init: INIT, bias: false, lora };
  const w1 = linear(scope.at('w1'), width, hidden, options);
  const w3 = linear(scope.at('w3'), width, hidden, options);
  const w2 = linear(scope.at('w2'), hidden, width, options);
  return (x) => w2(ops.swiGLU(w1(x), w3(x)));
}

/** A block's parameters, for a step of all blocks in one kernel. */
function stepBlock(block: Scope): ops.StepBlock {
  const norm = (name: string) => block.get(`${name}.weight`)!.value;
  const layer = (name: string): ops.StepLayer => {
    const weight = block.get(`${name}.weight`)!;
    return { ...(weight.packed ?? { weight: weight.value }), bias: block.get(`${name}.bias`)?.value };
  };
  const norms = {
    norm1: norm('norm1'),
    qNorm: norm('attn.q_norm'),
    kNorm: norm('attn.k_norm'),
    norm2: norm('norm2'),
  };
  const attention = { qkv: layer('attn.qkv'), proj: layer('attn.proj') };
  const layers = { ...attention, w1: layer('mlp.w1'), w3: layer('mlp.w3'), w2: layer('mlp.w2') };
  return { norms, layers, packed: block.get('attn.qkv.weight')!.packed !== undefined };
}

/** The decoder-only transformer over [condition, T codes] (AliTok, arXiv 2506.05289). */
export class Generator {
  readonly parameters = new Parameters();
  readonly geometry: GeneratorGeometry;
  private rotary?: ReturnType<typeof rotaryTable>;
  private readonly embeddings;
  private readonly blocks;
  private readonly stepBlocks: () => ops.StepBlock[];
  private readonly norm;
  private readonly normWeight: Parameter;
  private readonly output;

  private readonly adapted: boolean;

  /** With `lora`, the linear layers of the blocks have low-rank adapters. */
  constructor(config: GeneratorConfig, { lora }: { lora?: Lora } = {}) {
    this.adapted = lora !== undefined;
    const { width, layers, heads, classes, codebook_size, prefix_tokens, grid } = config;
    const geometry = { ...config, tokens: prefix_tokens + grid * grid, headWidth: width / heads };
    this.geometry = geometry;
    const scope = this.parameters.scope();
    this.embeddings = scope.parameter(EMBEDDINGS, [codebook_size + classes + 2, width], INIT);
    const scopes = Array.from({ length: layers }, (_, i) => scope.at('blocks').at(i));
    this.stepBlocks = () => scopes.map(stepBlock);
    this.blocks = scopes.map((block, i) => {
      const norm1 = rmsNorm(block.at('norm1'), width, ROUNDS);
      const attn = attention(block.at('attn'), geometry, { layer: i, lora });
      const norm2 = rmsNorm(block.at('norm2'), width, ROUNDS);
      const ff = mlp(block.at('mlp'), width, lora);
      const run = (x: tf.Tensor, pass: BlockPass) => {
        const h = x.add(attn(norm1(x), pass));
        return h.add(drop(ff(norm2(h)), pass.dropout, pass.dropout?.mlp, ROUNDS));
      };
      return (x: tf.Tensor, pass: Pass) => {
        const own = forBlock(pass);
        if (!pass.checkpointActivations) return run(x, own);
        const values = block.trained.map((p) => p.value);
        return ops.checkpointActivations((input) => run(input, own), x, values);
      };
    });
    this.norm = rmsNorm(scope.at('norm'), width, ROUNDS);
    this.normWeight = scope.at('norm').get('weight')!;
    this.output = linear(scope.at('output'), width, codebook_size, { init: zeros });
  }

  private get table(): ReturnType<typeof rotaryTable> {
    if (!this.rotary) {
      this.rotary = rotaryTable(this.geometry);
      tf.keep(this.rotary.cos);
      tf.keep(this.rotary.sin);
    }
    return this.rotary;
  }

  /** Vocabulary index of class c, N + 1 + c; c = C is "no class". */
  conditionOf(c: number): number {
    return this.geometry.codebook_size + 1 + c;
  }

  /** "No class", for guidance and class dropout: the class index after the last one, for `conditionOf`. */
  get noClass(): number {
    return this.geometry.classes;
  }

  /**
   * Training pass. condition (B) vocabulary indices, codes (B, T), both int32 → logits (B, 1 + T, N); position i
   * predicts code i, and the last position's output predicts nothing.
   */
  forward(condition: tf.Tensor1D, codes: tf.Tensor2D, training: TrainingPass = {}): tf.Tensor3D {
    const ids = tf.concat([condition.expandDims(1), codes], 1) as tf.Tensor2D;
    return this.run(ids, { ...this.table, ...training });
  }

  /** Mean cross-entropy of the first T outputs against the T codes. */
  loss(logits: tf.Tensor3D, codes: tf.Tensor2D): tf.Scalar {
    const { tokens, codebook_size } = this.geometry;
    const predictions = logits.slice([0, 0, 0], [-1, tokens, -1]).reshape([-1, codebook_size]) as tf.Tensor2D;
    return tf.mean(ops.crossEntropy(predictions, codes.flatten())) as tf.Scalar;
  }

  /** An empty cache for `batch` sequences of full length. */
  createCache(batch: number): KVCache {
    const { layers, tokens, heads, headWidth } = this.geometry;
    const empty = () => ops.newCache([batch, tokens, heads, headWidth]);
    const blocks = this.stepBlocks();
    const fused = !this.adapted && ops.hasGeneratorStep(batch, blocks);
    const stored = Array.from({ length: layers }, (_, i) => {
      const joined = fused ? ops.joinLayers(blocks[i]) : undefined;
      return { k: empty(), v: empty(), joined: joined && tf.keep(joined) };
    });
    return {
      layers: stored,
      fused,
      length: 0,
      dispose: () => {
        for (const { k, v, joined } of stored) tf.dispose([k, v, joined ?? []]);
      },
    };
  }

  /**
   * Decoding step at a position (1) int32 on the device, for `fused` caches: ids (B) int32 → logits (B, N). Nothing else
   * comes from the host, so an engine can record the step and replay it at the next position.
   */
  stepAt(position: tf.Tensor1D, ids: tf.Tensor1D, { layers: caches }: KVCache): tf.Tensor2D {
    const x = ops.embedding(this.embeddings.value, ids.expandDims(1));
    const place = { ...this.table, position, caches };
    const y = ops.generatorStep(x, this.stepBlocks(), this.normWeight.value, place);
    return this.output(y).squeeze([1]) as tf.Tensor2D;
  }

  /** Decoding step. ids (B) int32 at the cache's next position → logits (B, N) of the code that follows it. */
  step(ids: tf.Tensor1D, cache: KVCache): tf.Tensor2D {
    if (cache.fused) {
      const logits = this.stepAt(tf.tensor1d([cache.length], 'int32'), ids, cache);
      cache.length += 1;
      return logits;
    }
    const row = (x: tf.Tensor2D) => x.slice([cache.length, 0], [1, -1]);
    const logits = this.run(ids.expandDims(1), { cos: row(this.table.cos), sin: row(this.table.sin), cache });
    cache.length += 1;
    return logits.squeeze([1]);
  }

  /** ids (B, n) → logits (B, n, N) */
  private run(ids: tf.Tensor2D, pass: Pass): tf.Tensor3D {
    const { dropout } = pass;
    const drops = dropout && { rate: dropout.rate, first: dropout.first ?? 0 };
    const x = drop(ops.embedding(this.embeddings.value, ids), drops, dropout?.random.bits());
    const blocks = sequence(...this.blocks.map((block) => (h: tf.Tensor) => block(h, pass)));
    return this.output(this.norm(blocks(x))) as tf.Tensor3D;
  }

  dispose(): void {
    this.parameters.dispose();
    tf.dispose(this.rotary ?? []);
  }
}
