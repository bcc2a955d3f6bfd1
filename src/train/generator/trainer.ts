import * as tf from '@tensorflow/tfjs';
import { saveGenerator } from '../../checkpoint/generator.js';
import { adapterParameters, fingerprintOfBase, saveAdapters } from '../../checkpoint/lora.js';
import type { Config } from '../../config/schema.js';
import { ALONE, type Group } from '../../engine/distributed/group.js';
import { Generator } from '../../models/generator/generator.js';
import { Ema } from '../../nn/ema.js';
import { merged } from '../../nn/lora.js';
import type { Parameter, Parameters, Saved } from '../../nn/parameters.js';
import { cosineDecay, warmup } from '../../nn/schedule.js';
import { Random } from '../../random.js';
import type { TrainingParts } from '../../run/checkpoint.js';
import type { Metrics } from '../../run/metrics.js';
import type { TokenCache } from '../../tokens/codes.js';
import { type Division, divide } from '../step/division.js';
import { freeze } from '../step/freeze.js';
import { generatorDepths, layerDecay } from '../step/layer-decay.js';
import { Optimization } from '../step/optimization.js';
import type { Trainer } from '../trainer.js';
import { slice, type TokenBatch, TokenBatches } from './token-batches.js';

/** Parameters without weight decay, apart from those of fewer than two dimensions. */
const NO_DECAY = /ln|bias|latent_tokens|mask_token|embedding|norm|gamma|embed/;

export function decays(parameter: Parameter): boolean {
  return parameter.shape.length >= 2 && !NO_DECAY.test(parameter.name);
}

/** A micro-batch with its place in the step's batch, and which of its classes are dropped. */
interface DrawnBatch extends Pick<TokenBatch, 'codes' | 'classes'> {
  first: number;
  dropped: readonly boolean[];
}

/** Trains the generator on a token cache (AliTok, arXiv 2506.05289). */
export class GeneratorTrainer implements Trainer {
  steps = 0;
  waited = 0;
  readonly generator: Generator;
  private readonly options: Config['generator_training'];
  private readonly optimization: Optimization;
  private readonly ema?: Ema;
  /** With LoRA: the parameters that are trained. */
  private readonly adapters?: Parameters;
  /** With LoRA: identifies the parameters that adapters do not replace. */
  private base?: string;
  private readonly batches: TokenBatches;
  private readonly division: Division;

  constructor(
    private readonly config: Config,
    private readonly cache: TokenCache,
    generatorConfig: ConstructorParameters<typeof Generator>[0],
    group: Group = ALONE,
  ) {
    this.options = config.generator_training;
    this.division = divide('generator_training', this.options, group);
    const { lora, layer_decay, ema, ema_decay } = this.options;
    this.generator = new Generator(generatorConfig, { lora: lora ?? undefined });
    const { parameters } = this.generator;
    if (lora) this.adapters = adapterParameters(parameters);
    for (const p of parameters) p.frozen = this.adapters !== undefined && !this.adapters.get(p.name);
    freeze(parameters, this.options.freeze, 'generator_training');
    const lrScale = layerDecay(layer_decay, generatorDepths(generatorConfig));
    const trained = [...parameters].filter((p) => !p.frozen);
    this.optimization = new Optimization(trained, this.division, { ...this.options, decays, lrScale }, group);
    if (ema) this.ema = new Ema([...(this.adapters ?? parameters)], ema_decay);
    this.batches = new TokenBatches(cache, config.seed);
  }

  get totalSteps(): number {
    return this.options.steps;
  }

  get finished(): boolean {
    return this.steps >= this.totalSteps;
  }

  /** Fresh parameters and optimizer state. */
  initialize(): void {
    this.generator.parameters.initialize(this.initial);
    this.begin();
  }

  /** Where initial parameters come from. */
  get initial(): Random {
    return Random.of(this.config.seed, 'generator');
  }

  /** Fresh optimizer state, for parameters that have values. */
  begin(): void {
    this.optimization.initialize();
    this.ema?.initialize();
  }

  async step(): Promise<Metrics> {
    const { batch_size } = this.options;
    const { micro, own, first } = this.division;
    const random = Random.of(this.config.seed, `generator step ${this.steps}`);
    const { class_dropout } = this.config.generator;
    const dropped = Array.from({ length: batch_size }, () => random.uniform() < class_dropout);
    const at = this.steps * batch_size + first;
    const start = performance.now();
    const batch = await this.batches.read(at, own, at + batch_size);
    this.waited = performance.now() - start;
    const { lr } = this;
    const { images, crops } = batch;
    const { grad_norm, ...metrics } = await this.optimization.step({
      step: this.steps + 1,
      lr,
      loss: (part) => {
        const place = first + part * micro;
        const drawn = { first: place, dropped: dropped.slice(place) };
        return this.loss({ ...slice(batch, part * micro, micro), ...drawn }, Random.fromState(random.state));
      },
      batch: () => ({ images, crops }),
    });
    this.steps += 1;
    this.ema?.update(this.steps);
    return { ...metrics, lr, grad_norm };
  }

  /** The learning rate of the next step: a linear warm-up, then a cosine. */
  private get lr(): number {
    const { lr, lr_end, warmup_steps } = this.options;
    if (this.steps < warmup_steps) return lr * warmup(this.steps, warmup_steps);
    return cosineDecay(this.steps - warmup_steps, this.totalSteps - warmup_steps, lr, lr_end);
  }

  skip(): void {
    this.steps += 1;
  }

  /** Cross-entropy of one micro-batch, with dropout and dropped classes, and the accuracy. */
  private loss({ codes, classes, first, dropped }: DrawnBatch, random: Random) {
    const { generator, config } = this;
    const { tokens } = generator.geometry;
    const { dropout } = config.generator;
    const conditions = Int32Array.from(classes, (c, i) =>
      generator.conditionOf(dropped[i] ? generator.noClass : c),
    );
    const target = tf.tensor2d(codes, [classes.length, tokens], 'int32');
    const logits = generator.forward(tf.tensor1d(conditions, 'int32'), target, {
      dropout: dropout > 0 ? { rate: dropout, random, first } : undefined,
      checkpointActivations: this.options.checkpoint_activations,
    });
    const predicted = logits.slice([0, 0, 0], [-1, tokens, -1]).argMax(-1);
    const accuracy = predicted.equal(target).toFloat().mean() as tf.Scalar;
    return { loss: generator.loss(logits, target), accuracy };
  }

  gather(): Promise<void> {
    return this.optimization.gather();
  }

  release(): void {
    this.optimization.release();
  }

  /** The parameters to save and sample with: the EMA if there is one. With LoRA, all parameters. */
  get model(): Parameters {
    return (this.adapters ? undefined : this.ema?.parameters) ?? this.generator.parameters;
  }

  /** With LoRA, what a checkpoint restores is in `trainingParts`, and the other parameters come from the initial weights. */
  get derived(): boolean {
    return this.adapters !== undefined;
  }

  get saved(): Iterable<Saved> {
    const { lora } = this.options;
    if (!lora) return this.model;
    const adapters = this.ema?.parameters ?? this.adapters!;
    return lora.merge ? merged(this.generator.parameters, adapters, lora) : adapters;
  }

  async saveModel(path: string): Promise<void> {
    const { lora } = this.options;
    const { geometry: generator, parameters } = this.generator;
    const info = {
      generator,
      classNames: [...this.cache.classNames],
      tokenizer: this.cache.provenance?.fingerprint,
      sample: this.config.sample,
    };
    if (!lora || lora.merge) return saveGenerator(path, this.saved, info);
    this.base ??= await fingerprintOfBase(parameters, this.adapters!);
    const { rank, alpha } = lora;
    return saveAdapters(path, this.saved, { ...info, lora: { rank, alpha }, base: this.base });
  }

  dispose(): void {
    this.generator.dispose();
    this.ema?.parameters.dispose();
    this.optimization.state.dispose();
  }

  get trainingParts(): TrainingParts {
    const parts: TrainingParts = { optimizer: this.optimization.state };
    // With an EMA, the model file holds that; the trained parameters have a file of their own.
    if (this.ema) parts.parameters = this.adapters ?? this.generator.parameters;
    if (this.adapters) parts.adapters = this.ema?.parameters ?? this.adapters;
    return parts;
  }

  get state() {
    return { steps: this.steps, optimizer_steps: this.optimization.steps };
  }

  restore(state: GeneratorTrainer['state']): void {
    this.steps = state.steps;
    this.optimization.steps = state.optimizer_steps;
  }
}
