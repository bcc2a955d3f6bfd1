import * as tf from '@tensorflow/tfjs';
import { saveTokenizer } from '../../checkpoint/tokenizer.js';
import type { Config } from '../../config/schema.js';
import type { Batch } from '../../data/loader.js';
import { ALONE, type Group } from '../../engine/distributed/group.js';
import { ConfigError } from '../../errors.js';
import type { Stage } from '../../models/geometry.js';
import type { PerceptualTerms } from '../../models/judges/perceptual.js';
import { toTensor } from '../../models/pixels.js';
import { CodebookUsage } from '../../models/tokenizer/codebook-usage.js';
import { Discriminator } from '../../models/tokenizer/discriminator.js';
import {
  adversarialLoss,
  auxFactor,
  auxTarget,
  hingeLoss,
  LeCam,
  meanPsnr,
  mse,
  msePerImage,
  stitch,
} from '../../models/tokenizer/losses.js';
import { FROZEN_IN_STAGE_2, Tokenizer } from '../../models/tokenizer/tokenizer.js';
import { type LossAndMore, noGrad } from '../../nn/gradients.js';
import type { Parameter, Parameters } from '../../nn/parameters.js';
import { warmup } from '../../nn/schedule.js';
import { Random } from '../../random.js';
import type { TrainingParts } from '../../run/checkpoint.js';
import type { Metrics } from '../../run/metrics.js';
import { type Division, divide } from '../step/division.js';
import { freeze } from '../step/freeze.js';
import { layerDecay, tokenizerDepths } from '../step/layer-decay.js';
import { Optimization, type Step } from '../step/optimization.js';
import type { Trainer } from '../trainer.js';
import { type OpenBatches, TrainingImages } from '../training-batches.js';
import { checkPhases, type Phase, PhaseSchedule } from './phases.js';

/**
 * Marks what a stage does not train.
 * @throws ConfigError where `freeze` matches nothing, all, or a codebook that the clustering update would move
 */
export function freezeTokenizer(
  { stage, parameters }: Tokenizer,
  options: Config['tokenizer_training'],
): void {
  for (const p of parameters) p.frozen = stage === 2 && FROZEN_IN_STAGE_2.test(p.name);
  freeze(parameters, options.freeze, 'tokenizer_training', stage);
  const frozen = [...parameters].find((p) => p.name.startsWith('quantize.') && p.frozen);
  if (stage === 1 && options.stage1.clustering && frozen)
    throw new ConfigError(
      `tokenizer_training.freeze matches ${frozen.name}, which the clustering update of stage 1 moves; set tokenizer_training.stage1.clustering=false, or do not freeze it`,
    );
}

/** Trains one stage of the tokenizer through its phases (AliTok, arXiv 2506.05289). */
export class TokenizerTrainer implements Trainer {
  steps = 0;
  readonly tokenizer: Tokenizer;
  private readonly schedule: PhaseSchedule;
  private readonly options: Config['tokenizer_training'];
  private readonly division: Division;
  private readonly optimization: Optimization;
  private readonly adversary?: { model: Discriminator; optimization: Optimization };
  private readonly lecam = new LeCam();
  private usage: CodebookUsage;
  private readonly images: TrainingImages;

  /**
   * `openBatches` gives this process's part of each batch; `perceptual` has the terms with a weight in some phase (see
   * `openLossNetworks`). @throws ConfigError where the phases cannot run, or the batch cannot be divided
   */
  constructor(
    private readonly config: Config,
    stage: Stage,
    openBatches: OpenBatches,
    private readonly perceptual: PerceptualTerms = {},
    private readonly group: Group = ALONE,
  ) {
    this.images = new TrainingImages(openBatches);
    this.options = config.tokenizer_training;
    this.division = divide('tokenizer_training', this.options, group);
    this.tokenizer = new Tokenizer(config.tokenizer, stage, this.options);
    const { phases } = this.stageOptions;
    this.schedule = new PhaseSchedule(phases);
    checkPhases(config, stage);
    const optimize = (parameters: Iterable<Parameter>, lrScale?: (parameter: Parameter) => number) =>
      new Optimization(
        [...parameters].filter((p) => !p.buffer && !p.frozen),
        this.division,
        { ...this.options, lrScale },
        group,
      );
    freezeTokenizer(this.tokenizer, this.options);
    this.optimization = optimize(
      this.tokenizer.parameters,
      layerDecay(this.options.layer_decay, tokenizerDepths(config.tokenizer)),
    );
    if (phases.some((phase) => phase.adversarial)) {
      const model = new Discriminator(config.discriminator);
      this.adversary = { model, optimization: optimize(model.parameters) };
    }
    this.usage = new CodebookUsage(config.tokenizer.codebook_size);
  }

  private get stageOptions() {
    return this.tokenizer.stage === 1 ? this.options.stage1 : this.options.stage2;
  }

  get waited(): number {
    return this.images.waited;
  }

  get totalSteps(): number {
    return this.schedule.totalSteps;
  }

  get finished(): boolean {
    return this.schedule.finished;
  }

  /** Fresh parameters and optimizer states; stage 2 then takes encoder and codebook from a stage-1 tokenizer. */
  initialize(stage1?: Tokenizer): void {
    this.tokenizer.parameters.initialize(this.initial);
    this.begin(stage1);
  }

  /** Where initial parameters come from. */
  get initial(): Random {
    return Random.of(this.config.seed, `tokenizer stage ${this.tokenizer.stage}`);
  }

  /**
   * Fresh optimizer states and a fresh discriminator, for a tokenizer whose parameters have values; stage 2 takes encoder and
   * codebook from a stage-1 tokenizer.
   */
  begin(stage1?: Tokenizer): void {
    for (const p of this.tokenizer.parameters) {
      const source = FROZEN_IN_STAGE_2.test(p.name) ? stage1?.parameters.get(p.name) : undefined;
      if (source) p.value = source.value.clone();
    }
    this.optimization.initialize();
    this.adversary?.model.parameters.initialize(this.initial.fork('discriminator'));
    this.adversary?.optimization.initialize();
  }

  async step(): Promise<Metrics> {
    const batch = await this.images.next();
    const phase = this.schedule.current;
    const lr = this.schedule.lr * warmup(this.steps, this.options.warmup_steps);
    const onDiscriminator = phase.adversarial && this.schedule.step % 2 === 1;
    const metrics = onDiscriminator
      ? await this.discriminatorStep(batch, lr)
      : await this.tokenizerStep(batch, phase, lr);
    const position = { phase: this.schedule.phase + 1, lr };
    this.steps += 1;
    this.schedule.advance(metrics.loss);
    return { ...metrics, ...position };
  }

  get spans() {
    return this.schedule.beginnings.map(({ steps, state: schedule }) => ({
      steps,
      state: { ...this.state, schedule },
    }));
  }

  skip(): void {
    this.steps += 1;
    this.schedule.advance(undefined);
  }

  summary(): Metrics {
    const { used, entropy } = this.usage;
    this.usage = new CodebookUsage(this.config.tokenizer.codebook_size);
    return { codebook_usage: used, codebook_entropy: entropy };
  }

  /** What both kinds of step share: `loss` on each micro-batch x (B, S, S, 3) in [0, 1], and the batch's image files. */
  private stepOn(batch: Batch, lr: number, loss: (x: tf.Tensor4D) => LossAndMore) {
    const { micro } = this.division;
    const { image_size } = this.config.tokenizer;
    const length = micro * image_size * image_size * 3;
    return {
      step: this.steps + 1,
      lr,
      loss: (part) => loss(toTensor(batch.images.subarray(part * length, (part + 1) * length), image_size)),
      batch: () => ({ images: this.images.paths(batch) }),
    } satisfies Step;
  }

  private async tokenizerStep(batch: Batch, phase: Phase, lr: number): Promise<Metrics> {
    const latents: tf.Tensor2D[] = [];
    const indices: tf.Tensor1D[] = [];
    try {
      return await this.optimization.step({
        ...this.stepOn(batch, lr, (x) => this.tokenizerLoss(x, phase)),
        unbounded: ['psnr'], // infinite for a perfect reconstruction
        onResult: (result) => {
          latents.push(tf.keep(result.latents as tf.Tensor2D));
          indices.push(tf.keep(result.indices as tf.Tensor1D));
        },
        beforeUpdate: () => this.updateCodebook(latents, indices),
      });
    } finally {
      tf.dispose([latents, indices]);
    }
  }

  /** Adds to the codebook usage and makes the clustering update, both with the batch of all processes. */
  private async updateCodebook(latents: tf.Tensor2D[], indices: tf.Tensor1D[]): Promise<void> {
    const chosen = await this.ofAll(indices);
    this.usage.add(chosen.dataSync<'int32'>());
    if (this.tokenizer.stage === 1 && this.stageOptions.clustering) {
      const all = await this.ofAll(latents);
      this.tokenizer.quantizer.updateClusters!(all, chosen, this.options.usage_decay);
      all.dispose();
    }
    chosen.dispose();
  }

  /** The micro-batches' tensors of all processes, in the order of the step's batch. */
  private async ofAll<T extends tf.Tensor>(parts: T[]): Promise<T> {
    const own = tf.concat(parts);
    const all = await this.group.allGather(own);
    own.dispose();
    return all;
  }

  /** All terms of the tokenizer's loss on images x (B, S, S, 3), their PSNR, and what the clustering update needs. */
  private tokenizerLoss(x: tf.Tensor4D, phase: Phase): LossAndMore {
    const { tokenizer, perceptual, options } = this;
    const { image, aux, loss: quantizer, latents, indices } = tokenizer.forward(x);
    const errors = msePerImage(x, image);
    const terms: Record<string, tf.Scalar> = { mse: tf.mean(errors) };
    const weights: Record<string, number> = { mse: 1 };
    const add = (name: string, weight: number, term: () => tf.Scalar) => {
      if (weight === 0) return;
      terms[name] = term();
      weights[name] = weight;
    };
    const addPerceptual = (prefix: string, factor: number, reconstruction: tf.Tensor4D) => {
      add(`${prefix}lpips`, factor * phase.w_lpips, () => perceptual.lpips!(x, reconstruction));
      add(`${prefix}perceptual`, factor * phase.w_perc, () => perceptual.classifier!(x, reconstruction));
    };
    if (aux) {
      const { patch_size, prefix_tokens } = tokenizer.geometry;
      const factor = auxFactor(tokenizer.geometry, options.aux_weight);
      add('aux_mse', factor, () => mse(auxTarget(x, patch_size, prefix_tokens), aux));
      if (options.aux_perceptual) addPerceptual('aux_', factor, stitch(aux, image));
      if (quantizer) add('quantizer', 1, () => quantizer);
    }
    addPerceptual('', 1, image);
    if (phase.adversarial) {
      const weight = options.adversarial_weight * options.adversarial_factor;
      add('adversarial', weight, () => adversarialLoss(this.adversary!.model.forward(image)));
    }
    const weighted = Object.entries(terms).map(([name, term]) => term.mul(weights[name]) as tf.Scalar);
    return { loss: tf.addN(weighted) as tf.Scalar, ...terms, psnr: meanPsnr(errors), latents, indices };
  }

  private async discriminatorStep(batch: Batch, lr: number): Promise<Metrics> {
    const { model, optimization } = this.adversary!;
    const { adversarial_weight, lecam_weight } = this.options;
    const loss = (x: tf.Tensor4D) => {
      const image = noGrad(() => tf.tidy(() => this.tokenizer.forward(x).image));
      const [real, fake] = [model.forward(x), model.forward(image)];
      const terms: LossAndMore = { loss: hingeLoss(real, fake).mul(adversarial_weight) as tf.Scalar };
      if (lecam_weight > 0)
        terms.loss = terms.loss.add(this.lecam.loss(real.mean(), fake.mean()).mul(lecam_weight)) as tf.Scalar;
      return { ...terms, logits_real: real.mean(), logits_fake: fake.mean() };
    };
    const metrics = await optimization.step({
      ...this.stepOn(batch, lr, loss),
      beforeUpdate: ({ logits_real, logits_fake }) => {
        if (lecam_weight > 0) this.lecam.update(logits_real, logits_fake);
      },
    });
    const { loss: discriminator, logits_real, logits_fake, grad_norm } = metrics;
    return { discriminator, logits_real, logits_fake, discriminator_grad_norm: grad_norm };
  }

  async gather(): Promise<void> {
    await this.images.gather(this.group);
    await this.optimization.gather();
    await this.adversary?.optimization.gather();
  }

  release(): void {
    this.optimization.release();
    this.adversary?.optimization.release();
  }

  get model(): Parameters {
    return this.tokenizer.parameters;
  }

  async close(): Promise<void> {
    await this.images.close();
  }

  dispose(): void {
    this.tokenizer.parameters.dispose();
    for (const parameters of Object.values(this.trainingParts)) parameters.dispose();
  }

  async saveModel(path: string): Promise<void> {
    await saveTokenizer(path, this.tokenizer);
  }

  get trainingParts(): TrainingParts {
    const parts: TrainingParts = { optimizer: this.optimization.state };
    if (this.adversary) {
      parts.discriminator = this.adversary.model.parameters;
      parts['discriminator-optimizer'] = this.adversary.optimization.state;
    }
    return parts;
  }

  get state() {
    return {
      steps: this.steps,
      schedule: this.schedule.state,
      optimizer_steps: this.optimization.steps,
      discriminator_steps: this.adversary?.optimization.steps ?? 0,
      lecam: this.lecam.state,
      usage: this.usage.state,
      position: this.images.position,
    };
  }

  restore(state: TokenizerTrainer['state']): void {
    this.steps = state.steps;
    this.schedule.restore(state.schedule);
    this.optimization.steps = state.optimizer_steps;
    if (this.adversary) this.adversary.optimization.steps = state.discriminator_steps;
    this.lecam.state = state.lecam;
    this.usage.state = state.usage;
    this.images.position = state.position;
  }
}
