import * as tf from '@tensorflow/tfjs';
import { saveFeatureNetwork } from '../../checkpoint/feature-network.js';
import type { Config } from '../../config/schema.js';
import type { Position, TrainingLoader } from '../../data/loader.js';
import { ALONE, type Group } from '../../engine/distributed/group.js';
import * as ops from '../../engine/ops/index.js';
import { FeatureNetwork } from '../../models/judges/feature-network.js';
import { toTensor } from '../../models/pixels.js';
import { AdamW } from '../../nn/adamw.js';
import type { Parameter, Parameters } from '../../nn/parameters.js';
import { cosineDecay } from '../../nn/schedule.js';
import { Random } from '../../random.js';
import type { TrainingParts } from '../../run/checkpoint.js';
import type { Metrics } from '../../run/metrics.js';
import { divide, finiteNorm, sumGradients, update } from '../step/optimize.js';
import { type Trainer, timed } from '../trainer.js';
import type { OpenBatches } from '../training-images.js';

/** Trains the feature network as a classifier of the data set's own classes. */
export class FeatureTrainer implements Trainer {
  steps = 0;
  waited = 0;
  readonly network: FeatureNetwork;
  private readonly options: Config['features'];
  private readonly trained: Parameter[];
  private readonly optimizer: AdamW;
  private loader?: TrainingLoader;
  private position?: Position;

  constructor(
    private readonly config: Config,
    private readonly classNames: readonly string[],
    private readonly openBatches: OpenBatches,
    private readonly group: Group = ALONE,
  ) {
    this.options = config.features;
    divide('features', this.options, group);
    this.network = new FeatureNetwork({
      image_size: config.tokenizer.image_size,
      classes: classNames.length,
      channels: [...this.options.channels],
    });
    this.trained = [...this.network.parameters];
    const { beta1, beta2, weight_decay } = config.tokenizer_training;
    this.optimizer = new AdamW(this.trained, { beta1, beta2, weight_decay });
  }

  get model(): Parameters {
    return this.network.parameters;
  }

  get totalSteps(): number {
    return this.options.steps;
  }

  get finished(): boolean {
    return this.steps >= this.totalSteps;
  }

  initialize(): void {
    this.network.parameters.initialize(Random.of(this.config.seed, 'feature network'));
    this.optimizer.initialize();
  }

  async step(): Promise<Metrics> {
    this.loader ??= this.openBatches(this.position);
    const [batch, waited] = await timed(this.loader.next());
    this.waited = waited;
    const { images, classes } = batch;
    const lossOf = () => {
      const { logits } = this.network.forward(toTensor(images, this.network.config.image_size));
      const targets = tf.tensor1d(classes, 'int32');
      const accuracy = logits.argMax(-1).equal(targets).toFloat().mean() as tf.Scalar;
      return { loss: ops.crossEntropy(logits, targets).mean() as tf.Scalar, accuracy };
    };
    const { gradients, metrics } = await sumGradients(this.trained, 1, lossOf, { group: this.group });
    const lr = cosineDecay(this.steps, this.totalSteps, this.options.lr, 0);
    const seen = { step: this.steps + 1, lr, metrics, batch: { images: this.loader.paths(batch) } };
    const accumulation = this.group.size;
    const norm = finiteNorm(gradients, accumulation, seen);
    await update(this.optimizer, gradients, lr, { norm, accumulation, clip_norm: 1 });
    this.steps += 1;
    return { ...metrics, lr, grad_norm: norm };
  }

  skip(): void {
    this.steps += 1;
  }

  async gather(): Promise<void> {
    await this.loader?.gatherUnreadable(this.group);
  }

  async close(): Promise<void> {
    await this.loader?.close();
  }

  dispose(): void {
    this.network.parameters.dispose();
    this.optimizer.state.dispose();
  }

  async saveModel(path: string): Promise<void> {
    await saveFeatureNetwork(path, this.network, this.classNames);
  }

  get trainingParts(): TrainingParts {
    return { optimizer: this.optimizer.state };
  }

  get state() {
    const { steps } = this;
    return { steps, optimizer_steps: this.optimizer.steps, position: this.loader?.position ?? this.position };
  }

  restore(state: FeatureTrainer['state']): void {
    this.steps = state.steps;
    this.optimizer.steps = state.optimizer_steps;
    this.position = state.position;
  }
}
