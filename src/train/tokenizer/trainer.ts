import * as tf from '@tensorflow/tfjs';
import { saveTokenizer } from '../../checkpoint/tokenizer.js';
import type { Config } from '../../config/schema.js';
import type { Batch, Position, TrainingLoader } from '../../data/loader.js';
import { ALONE, type Group } from '../../engine/distributed/group.js';
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
} from '../../models/tokenizer/losses.js';
import { FROZEN_IN_STAGE_2, Tokenizer } from '../../models/tokenizer/tokenizer.js';
import { type Gradient, type LossAndMore, noGrad } from '../../nn/gradients.js';
import type { Parameter, Parameters } from '../../nn/parameters.js';
import { warmup } from '../../nn/schedule.js';
import { Random } from '../../random.js';
import type { TrainingParts } from '../../run/checkpoint.js';
import type { Metrics } from '../../run/metrics.js';
import { checkPhases } from '../check-schedule.js';
import { type Division, divide, finiteNorm, type Seen, sumGradients, update } from '../step/optimize.js';
import { GroupAdamW } from '../step/sharded-adamw.js';
import { type Trainer, timed } from '../trainer.js';
import type { OpenBatches } from '../training-images.js';
import { type Phase, PhaseSchedule } from './phases.js';

/** Trains one stage of the tokenizer through its phases (AliTok, arXiv 2506.05289). */
export class TokenizerTrainer implements Trainer {
  steps = 0;
  waited = 0;
  readonly tokenizer: Tokenizer;
  private readonly schedule: PhaseSchedule;
  private readonly options: Config['tokenizer_training'];
  private readonly trained: Parameter[];
  private readonly division: Division;
  private readonly optimizer: GroupAdamW;
  private readonly adversary?: { model: Discriminator; trained: Parameter[]; optimizer: GroupAdamW };
  private readonly lecam = new LeCam();
  private usage: CodebookUsage;
  private loader?: TrainingLoader;
  private position?: Position;

  /**
   * `openBatches` gives this process's stretch of each batch; `perceptual` has the terms that phases give weight to, as
   * `openLossNetworks` gives them. @throws ConfigError if the phases cannot be gone through
   */
  constructor(
    private readonly config: Config,
    stage: Stage,
    private readonly openBatches: OpenBatches,
    private readonly perceptual: PerceptualTerms = {},
    private readonly group: Group = ALONE,
  ) {
    this.options = config.tokenizer_training;
    this.division = divide('tokenizer_training', this.options, group);
    this.tokenizer = new Tokenizer(config.tokenizer, stage, this.options);
    const { phases } = this.stageOptions;
    this.schedule = new PhaseSchedule(phases);
    checkPhases(config, stage);
    this.trained = [...this.tokenizer.parameters].filter(
      (p) => !p.buffer && (stage === 1 || !FROZEN_IN_STAGE_2.test(p.name)),
    );
    const optimizerOf = (parameters: Parameter[]) =>
      new GroupAdamW(parameters, this.options, group, this.options.shard_optimizer);
    this.optimizer = optimizerOf(this.trained);
    if (phases.some((phase) => phase.adversarial)) {
      const model = new Discriminator(config.discriminator);
      const trained = [...model.parameters].filter((p) => !p.buffer);
      this.adversary = { model, trained, optimizer: optimizerOf(trained) };
    }
    this.usage = new CodebookUsage(config.tokenizer.codebook_size);
  }

  private get stageOptions() {
    return this.tokenizer.stage === 1 ? this.options.stage1 : this.options.stage2;
  }

  get totalSteps(): number {
    return this.schedule.totalSteps;
  }

  get finished(): boolean {
    return this.schedule.finished;
  }

  /** Fresh parameters and optimizer states; stage 2 then takes encoder and codebook from a stage-1 tokenizer. */
  initialize(stage1?: Tokenizer): void {
    const random = Random.of(this.config.seed, `tokenizer stage ${this.tokenizer.stage}`);
    this.tokenizer.parameters.initialize(random);
    for (const p of this.tokenizer.parameters) {
      const source = FROZEN_IN_STAGE_2.test(p.name) ? stage1?.parameters.get(p.name) : undefined;
      if (source) p.value = source.value.clone();
    }
    this.optimizer.initialize();
    this.adversary?.model.parameters.initialize(random.fork('discriminator'));
    this.adversary?.optimizer.initialize();
  }

  async step(): Promise<Metrics> {
    this.loader ??= this.openBatches(this.position);
    const [batch, waited] = await timed(this.loader.next());
    this.waited = waited;
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

  private seen(batch: Batch, lr: number, metrics: Metrics): Omit<Seen, 'grad_norm'> {
    return { step: this.steps + 1, lr, metrics, batch: { images: this.loader!.paths(batch) } };
  }

  summary(): Metrics {
    const { used, entropy } = this.usage;
    this.usage = new CodebookUsage(this.config.tokenizer.codebook_size);
    return { codebook_usage: used, codebook_entropy: entropy };
  }

  /** `sumGradients` with the batch cut into its micro-batches, each x (B, S, S, 3) in [0, 1]. */
  private overBatch(
    images: Uint8Array,
    trained: readonly Parameter[],
    lossOf: (x: tf.Tensor4D) => LossAndMore,
    each?: (result: LossAndMore) => void,
  ) {
    const { parts } = this.division;
    const length = images.length / parts;
    const micro = (part: number) =>
      toTensor(images.subarray(part * length, (part + 1) * length), this.config.tokenizer.image_size);
    return sumGradients(trained, parts, (part) => lossOf(micro(part)), { group: this.group, each });
  }

  private async tokenizerStep(batch: Batch, phase: Phase, lr: number): Promise<Metrics> {
    const latents: tf.Tensor2D[] = [];
    const indices: tf.Tensor1D[] = [];
    let gradients: Gradient[] = [];
    try {
      const summed = await this.overBatch(
        batch.images,
        this.trained,
        (x) => this.tokenizerLoss(x, phase),
        (result) => {
          latents.push(tf.keep(result.latents as tf.Tensor2D));
          indices.push(tf.keep(result.indices as tf.Tensor1D));
        },
      );
      gradients = summed.gradients;
      const { psnr, ...metrics } = summed.metrics; // PSNR is infinite for an image that is met exactly
      const { means } = this;
      const norm = finiteNorm(gradients, means.accumulation, this.seen(batch, lr, metrics));
      const chosen = await this.ofAll(indices);
      this.usage.add(chosen.dataSync<'int32'>());
      if (this.tokenizer.stage === 1 && this.stageOptions.clustering) {
        const seen = await this.ofAll(latents);
        this.tokenizer.quantizer.updateClusters!(seen, chosen, this.options.usage_decay);
        seen.dispose();
      }
      chosen.dispose();
      await update(this.optimizer, gradients, lr, { ...means, norm });
      return { ...metrics, psnr, grad_norm: norm };
    } finally {
      tf.dispose([latents, indices, gradients]);
    }
  }

  /** The micro-batches' tensors of all processes, in the order of the step's batch. */
  private async ofAll<T extends tf.Tensor>(parts: T[]): Promise<T> {
    const own = tf.concat(parts);
    const all = await this.group.allGather(own);
    own.dispose();
    return all;
  }

  private get means() {
    const { accumulation, clip_norm } = this.options;
    return { accumulation: accumulation * this.group.size, clip_norm };
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
    if (aux) {
      const { geometry } = tokenizer;
      add('aux_mse', auxFactor(geometry, options.aux_weight), () =>
        mse(auxTarget(x, geometry.patch_size), aux),
      );
      if (quantizer) add('quantizer', 1, () => quantizer);
    }
    add('lpips', phase.w_lpips, () => perceptual.lpips!(x, image));
    add('perceptual', phase.w_perc, () => perceptual.classifier!(x, image));
    if (phase.adversarial) {
      const weight = options.adversarial_weight * options.adversarial_factor;
      add('adversarial', weight, () => adversarialLoss(this.adversary!.model.forward(image)));
    }
    const weighted = Object.entries(terms).map(([name, term]) => term.mul(weights[name]) as tf.Scalar);
    return { loss: tf.addN(weighted) as tf.Scalar, ...terms, psnr: meanPsnr(errors), latents, indices };
  }

  private async discriminatorStep(batch: Batch, lr: number): Promise<Metrics> {
    const { model, trained, optimizer } = this.adversary!;
    const { adversarial_weight, lecam_weight } = this.options;
    const { gradients, metrics } = await this.overBatch(batch.images, trained, (x) => {
      const image = noGrad(() => tf.tidy(() => this.tokenizer.forward(x).image));
      const [real, fake] = [model.forward(x), model.forward(image)];
      const terms: LossAndMore = { loss: hingeLoss(real, fake).mul(adversarial_weight) as tf.Scalar };
      if (lecam_weight > 0)
        terms.loss = terms.loss.add(this.lecam.loss(real.mean(), fake.mean()).mul(lecam_weight)) as tf.Scalar;
      return { ...terms, logits_real: real.mean(), logits_fake: fake.mean() };
    });
    const norm = finiteNorm(gradients, this.means.accumulation, this.seen(batch, lr, metrics));
    if (lecam_weight > 0) this.lecam.update(metrics.logits_real, metrics.logits_fake);
    await update(optimizer, gradients, lr, { ...this.means, norm });
    const { loss: discriminator, logits_real, logits_fake } = metrics;
    return { discriminator, logits_real, logits_fake, discriminator_grad_norm: norm };
  }

  async gather(): Promise<void> {
    await this.loader?.gatherUnreadable(this.group);
    await this.optimizer.gather();
    await this.adversary?.optimizer.gather();
  }

  release(): void {
    this.optimizer.release();
    this.adversary?.optimizer.release();
  }

  get model(): Parameters {
    return this.tokenizer.parameters;
  }

  async close(): Promise<void> {
    await this.loader?.close();
  }

  dispose(): void {
    this.tokenizer.parameters.dispose();
    for (const parameters of Object.values(this.trainingParts)) parameters.dispose();
  }

  async saveModel(path: string): Promise<void> {
    await saveTokenizer(path, this.tokenizer);
  }

  get trainingParts(): TrainingParts {
    const parts: TrainingParts = { optimizer: this.optimizer.state };
    if (this.adversary) {
      parts.discriminator = this.adversary.model.parameters;
      parts['discriminator-optimizer'] = this.adversary.optimizer.state;
    }
    return parts;
  }

  get state() {
    return {
      steps: this.steps,
      schedule: this.schedule.state,
      optimizer_steps: this.optimizer.steps,
      discriminator_steps: this.adversary?.optimizer.steps ?? 0,
      lecam: this.lecam.state,
      usage: this.usage.state,
      position: this.loader?.position ?? this.position,
    };
  }

  restore(state: TokenizerTrainer['state']): void {
    this.steps = state.steps;
    this.schedule.restore(state.schedule);
    this.optimizer.steps = state.optimizer_steps;
    if (this.adversary) this.adversary.optimizer.steps = state.discriminator_steps;
    this.lecam.state = state.lecam;
    this.usage.state = state.usage;
    this.position = state.position;
  }
}
