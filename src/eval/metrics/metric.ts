import type { Reporter } from '../../job/reporter.js';
import type { Arrays } from '../../job/rounds.js';
import type { Gaussian } from './statistics.js';

/** Features of B images, row-major. */
export interface FeatureRows {
  /** (B, dimensions.pool): for FID, KID, precision and recall. */
  pool: Float32Array;
  /** (B, dimensions.spatial): for sFID. */
  spatial: Float32Array;
  /** (B, dimensions.logits): for the inception score. */
  logits: Float32Array;
}

/** A network whose features are compared. */
export interface FeatureExtractor {
  name: string;
  /** SHA-256 of its weights file, reported with every result. */
  checksum: string;
  /** How pixels are prepared for the network, reported with every result. */
  preprocessing: string;
  dimensions: Record<keyof FeatureRows, number>;
  /** Features of images, uint8 (B, size, size, 3); B may be 0. */
  extract(images: Uint8Array, size: number): FeatureRows;
  dispose(): void;
}

/** A batch of n images with what a tokenizer makes of them; n may be 0. */
export interface Reconstructions {
  /** uint8 (n, S, S, 3) */
  originals: Uint8Array;
  /** uint8 (n, S, S, 3) */
  reconstructions: Uint8Array;
  /** (n, T) */
  codes: Int32Array;
}

/** What reconstruction metrics are computed with. */
export interface ReconstructionSetup {
  /** S, in pixels. */
  imageSize: number;
  codebookSize: number;
  /** Where the tokenizer was loaded from, for messages. */
  tokenizer: string;
  reporter: Reporter;
  /** Given where a metric needs `features`. */
  extractor?: FeatureExtractor;
  /** Weight files of VGG-16 and of LPIPS, given where a metric needs `lpips`. */
  lpips?: { vgg16: string; lpips: string };
}

/** A reconstruction metric while batches come in. */
export interface ReconstructionMeasurement<Values, Measured extends Arrays = Arrays> {
  /** Measures a batch, on the process that reconstructed it. The batch may be empty; then the result is not added. */
  measure(batch: Reconstructions): Measured;
  /** Adds what was measured of one batch; on rank 0, batch by batch in order. */
  add(measured: Measured): void;
  /** The metric over all `images`; on rank 0, at the end. */
  result(images: number): Values | Promise<Values>;
  dispose?(): void;
}

/** A metric of a tokenizer's reconstructions. `Values` are its keys in the result. */
export interface ReconstructionMetric<Values> {
  readonly name: string;
  /** The option whose files it needs; without them it is left out of the result. */
  readonly needs?: 'features' | 'lpips';
  start(
    setup: ReconstructionSetup,
  ): ReconstructionMeasurement<Values> | Promise<ReconstructionMeasurement<Values>>;
}

/**
 * What is gathered of the features of a set of images: mean and covariance of the pooled or the spatial features, every
 * row of pooled features, or the logits, which are only passed to `add`.
 */
export type Need = 'poolGaussian' | 'spatialGaussian' | 'poolRows' | 'logits';

/** Features of a set of images. What no metric needs is not gathered. */
export interface FeatureSet {
  readonly count: number;
  gaussian(of: 'pool' | 'spatial'): Gaussian;
  /** (count, D), row-major. */
  readonly poolRows: Float32Array;
}

/** What generation metrics are computed with. */
export interface GenerationSetup {
  /** Upper bound of the number of samples. */
  samples: number;
  dimensions: Record<keyof FeatureRows, number>;
  reporter: Reporter;
}

/** A generation metric while features come in; on rank 0. */
export interface GenerationMeasurement<Values> {
  /** Takes features of the next samples, in order; only the kinds that are needed have rows. */
  add?(batch: FeatureRows): void;
  /** The metric of all samples against the reference. */
  result(samples: FeatureSet, reference: FeatureSet): Values | Promise<Values>;
}

/** A metric of generated images. `Values` are its keys in the result. */
export interface GenerationMetric<Values> {
  readonly name: string;
  /** What is gathered on either side. If the reference does not have it, the metric is left out of the result. */
  readonly needs: {
    readonly samples: readonly Need[];
    readonly reference: readonly Exclude<Need, 'logits'>[];
  };
  /** Settings that define the metric, reported with every result. */
  readonly settings?: Readonly<Record<string, number>>;
  start(setup: GenerationSetup): GenerationMeasurement<Values>;
}
