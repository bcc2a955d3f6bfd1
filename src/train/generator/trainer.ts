import * as tf from '@tensorflow/tfjs';
import { saveGenerator } from '../../checkpoint/generator.js';
import type { Config } from '../../config/schema.js';
import { ALONE, type Group } from '../../engine/distributed/group.js';
import { Generator } from '../../models/generator/generator.js';
import { Ema } from '../../nn/ema.js';
import type { Parameter, Parameters } from '../../nn/parameters.js';
import { cosineDecay, warmup } from '../../nn/schedule.js';
import { Random } from '../../random.js';
import type { TrainingParts } from '../../run/checkpoint.js';
import type { Metrics } from '../../run/metrics.js';
import type { TokenCache } from '../../tokens/codes.js';
import { type Division, divide, finiteNorm, sumGradients, update } from '../step/optimize.js';
import { GroupAdamW } from '../step/sharded-adamw.js';
import { type Trainer, timed } from '../trainer.js';
import { slice, type TokenBatch, TokenBatches } from './token-batches.js';

/** Parameters without weight decay, apart from those of fewer than two dimensions. */
const NO_DECAY = /ln|bias|latent_tokens|mask_token|embedding|norm|gamma|embed/;

export function decays(parameter: Parameter): boolean {
  return parameter.shape.length >= 2 && !NO_DECAY.test(parameter.name);
}

/** A micro-batch with what was drawn for it: its place in the step's batch, and whose class is dropped. */
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
  private readonly trained: Parameter[];
  private readonly optimizer: GroupAdamW;
  private readonly ema?: Ema;
  private readonly batches: TokenBatches;
  private readonly division: Division;

  constructor(
    private readonly config: Config,
    private readonly cache: TokenCache,
    generatorConfig: ConstructorParameters<typeof Generator>[0],
    private readonly group: Group = ALONE,
  ) {
    this.options = config.generator_training;
    this.division = divide('generator_training', this.options, group);
    this.generator = new Generator(generatorConfig);
    this.trained = [...this.generator.parameters];
    this.optimizer = new GroupAdamW(
      this.trained,
      { ...this.options, decays },
      group,
      this.options.shard_optimizer,
    );
    if (this.options.ema) this.ema = new Ema(this.trained, this.options.ema_decay);
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
    this.generator.parameters.initialize(Random.of(this.config.seed, 'generator'));
    this.optimizer.initialize();
    this.ema?.initialize();
  }

  async step(): Promise<Metrics> {
    const { batch_size, accumulation, lr, lr_end, warmup_steps, clip_norm } = this.options;
    const { micro, parts, first } = this.division;
    const random = Random.of(this.config.seed, `generator step ${this.steps}`);
    const { class_dropout } = this.config.generator;
    const dropped = Array.from({ length: batch_size }, () => random.uniform() < class_dropout);
    const at = this.steps * batch_size + first;
    const [batch, waited] = await timed(this.batches.read(at, parts * micro, at + batch_size));
    this.waited = waited;
    const { gradients, metrics } = await sumGradients(
      this.trained,
      parts,
      (part) => {
        const own = { first: first + part * micro, dropped: dropped.slice(first + part * micro) };
        return this.loss({ ...slice(batch, part * micro, micro), ...own }, Random.fromState(random.state));
      },
      { group: this.group },
    );
    const rate =
      this.steps < warmup_steps
        ? lr * warmup(this.steps, warmup_steps)
        : cosineDecay(this.steps - warmup_steps, this.totalSteps - warmup_steps, lr, lr_end);
    const { images, crops } = batch;
    const seen = { step: this.steps + 1, lr: rate, metrics, batch: { images, crops } };
    const means = { accumulation: accumulation * this.group.size, clip_norm };
    const norm = finiteNorm(gradients, means.accumulation, seen);
    await update(this.optimizer, gradients, rate, { ...means, norm });
    this.steps += 1;
    this.ema?.update(this.steps);
    return { ...metrics, lr: rate, grad_norm: norm };
  }

  skip(): void {
    this.steps += 1;
  }

  /** Cross-entropy of one micro-batch with dropout and dropped classes, and the share of codes predicted. */
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
    return this.optimizer.gather();
  }

  release(): void {
    this.optimizer.release();
  }

  /** What is saved and sampled: the average if there is one. */
  get model(): Parameters {
    return this.ema?.parameters ?? this.generator.parameters;
  }

  async saveModel(path: string): Promise<void> {
    await saveGenerator(path, this.model, {
      generator: this.generator.geometry,
      classNames: [...this.cache.classNames],
      tokenizer: this.cache.provenance?.fingerprint,
      sample: this.config.sample,
    });
  }

  dispose(): void {
    this.generator.dispose();
    this.ema?.parameters.dispose();
    this.optimizer.state.dispose();
  }

  get trainingParts(): TrainingParts {
    const parts: TrainingParts = { optimizer: this.optimizer.state };
    // With an average, the model's file holds that; the parameters that train are kept beside it.
    if (this.ema) parts.parameters = this.generator.parameters;
    return parts;
  }

  get state() {
    return { steps: this.steps, optimizer_steps: this.optimizer.steps };
  }

  restore(state: GeneratorTrainer['state']): void {
    this.steps = state.steps;
    this.optimizer.steps = state.optimizer_steps;
  }
}
