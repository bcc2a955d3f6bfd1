import { type CodebookValues, codebook } from './codebook.js';
import { type FidValues, fid } from './fid.js';
import { type InceptionScoreSettings, type InceptionScoreValues, inceptionScore } from './inception-score.js';
import { type KidValues, kid } from './kid.js';
import { type LpipsValues, lpips } from './lpips.js';
import type { GenerationMetric, ReconstructionMetric } from './metric.js';
import {
  type PrecisionRecall,
  type PrecisionRecallSettings,
  precisionAndRecall,
} from './precision-recall.js';
import { type PsnrValues, psnrMetric } from './psnr.js';
import { type RfidValues, rfid } from './rfid.js';
import { type SfidValues, sfid } from './sfid.js';
import { type SsimValues, ssimMetric } from './ssim.js';

/** Metrics of reconstructions, in the order of the result's keys. */
export const RECONSTRUCTION_METRICS: readonly ReconstructionMetric<object>[] = [
  psnrMetric,
  ssimMetric,
  lpips,
  codebook,
  rfid,
];

/** The values of all reconstruction metrics; optional where a metric needs files. */
export interface ReconstructionValues
  extends PsnrValues,
    SsimValues,
    Partial<LpipsValues>,
    CodebookValues,
    Partial<RfidValues> {}

/** Metrics of generated images, in the order of the result's keys. */
export const GENERATION_METRICS: readonly GenerationMetric<object>[] = [
  fid,
  sfid,
  inceptionScore,
  precisionAndRecall,
  kid,
];

/** The values of all generation metrics; optional where a reference may lack what a metric needs. */
export interface GenerationValues
  extends FidValues,
    Partial<SfidValues>,
    InceptionScoreValues,
    Partial<PrecisionRecall>,
    Partial<KidValues> {}

/** The settings that define generation metrics, reported with every result. */
export interface GenerationSettings extends InceptionScoreSettings, PrecisionRecallSettings {}
