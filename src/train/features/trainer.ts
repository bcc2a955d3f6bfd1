import * as tf from '@tensorflow/tfjs';
import { saveFeatureNetwork } from '../../checkpoint/feature-network.js';
import type { Config } from '../../config/schema.js';
import { ALONE, type Group } from '../../engine/distributed/group.js';
import * as ops from '../../engine/ops/index.js';
import { FeatureNetwork } from '../../models/judges/feature-network.js';
import { toTensor } from '../../models/pixels.js';
import type { Parameters } from '../../nn/parameters.js';
import { cosineDecay } from '../../nn/schedule.js';
import { Random } from '../../random.js';
import type { TrainingParts } from '../../run/checkpoint.js';
import type { Metrics } from '../../run/metrics.js';
import { divide } from '../step/division.js';
import { Optimization } from '../step/optimization.js';
import type { Trainer } from '../trainer.js';
import { type OpenBatches, TrainingImages } from '../training-batches.js';

/** Trains the feature network as a classifier of the data set's own classes. */
export class FeatureTrainer implements Trainer {
  steps = 0;
  readonly network: FeatureNetwork;
  private readonly options: Config['features'];
  private readonly optimization: Optimization;
  private readonly images: TrainingImages;

  constructor(
    private readonly config: Config,
    private readonly classNames: readonly string[],
    openBatches: OpenBatches,
    private readonly group: Group = ALONE,
  ) {
    this.images = new TrainingImages(openBatches);
    this.options = config.features;
    const division = divide('features', this.options, group);
    this.network = new FeatureNetwork({
      image_size: config.tokenizer.image_size,
      classes: classNames.length,
      channels: [...this.options.channels],
    });
    const { beta1, beta2, weight_decay } = config.tokenizer_training;
    const adam = { beta1, beta2, weight_decay, clip_norm: 1 };
    this.optimization = new Optimization([...this.network.parameters], division, adam, group);
  }

  get model(): Parameters {
    return this.network.parameters;
  }

  get waited(): number {
    return this.images.waited;
  }

  get totalSteps(): number {
    return this.options.steps;
  }

  get finished(): boolean {
    return this.steps >= this.totalSteps;
  }

  initialize(): void {
    this.network.parameters.initialize(Random.of(this.config.seed, 'feature network'));
    this.optimization.initialize();
  }

  async step(): Promise<Metrics> {
    const batch = await this.images.next();
    const { images, classes } = batch;
    const lr = cosineDecay(this.steps, this.totalSteps, this.options.lr, 0);
    const { grad_norm, ...metrics } = await this.optimization.step({
      step: this.steps + 1,
      lr,
      loss: () => this.loss(images, classes),
      batch: () => ({ images: this.images.paths(batch) }),
    });
    this.steps += 1;
    return { ...metrics, lr, grad_norm };
  }

  /** Cross-entropy of images (uint8, B·S·S·3) and their classes, and the accuracy. */
  private loss(images: Uint8Array, classes: Int32Array) {
    const { logits } = this.network.forward(toTensor(images, this.network.config.image_size));
    const targets = tf.tensor1d(classes, 'int32');
    const accuracy = logits.argMax(-1).equal(targets).toFloat().mean() as tf.Scalar;
    return { loss: ops.crossEntropy(logits, targets).mean() as tf.Scalar, accuracy };
  }

  skip(): void {
    this.steps += 1;
  }

  async gather(): Promise<void> {
    await this.images.gather(this.group);
  }

  async close(): Promise<void> {
    await this.images.close();
  }

  dispose(): void {
    this.network.parameters.dispose();
    this.optimization.state.dispose();
  }

  async saveModel(path: string): Promise<void> {
    await saveFeatureNetwork(path, this.network, this.classNames);
  }

  get trainingParts(): TrainingParts {
    return { optimizer: this.optimization.state };
  }

  get state() {
    const { steps } = this;
    return {
      steps,
      optimizer_steps: this.optimization.steps,
      position: this.images.position,
    };
  }

  restore(state: FeatureTrainer['state']): void {
    this.steps = state.steps;
    this.optimization.steps = state.optimizer_steps;
    this.images.position = state.position;
  }
}
