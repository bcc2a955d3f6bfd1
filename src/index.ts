/**
 * alitok as a library: load a tokenizer, encode and decode; load a generator, sample; evaluate.
 *
 * ```ts
 * import { openEngine, openGenerator, openTokenizer, writeImage } from 'alitok';
 *
 * await openEngine();
 * const tokenizer = await openTokenizer('AliTok.pth');
 * const generator = await openGenerator('alitok_b.bin', tokenizer);
 * const [goldfish] = await generator.sample([1]);
 * await writeImage('goldfish.png', goldfish);
 * ```
 *
 * @packageDocumentation
 */
export {
  evaluateGeneration,
  evaluateReconstruction,
} from './api/evaluate.js';
export {
  type ImageGenerator,
  openGenerator,
  type SampledClass,
  type SampleSettings,
} from './api/generator.js';
export { readImage, writeImage } from './api/images.js';
export { type ImageTokenizer, openTokenizer } from './api/tokenizer.js';
export type { Config } from './config/schema.js';
export type { Image } from './data/images/decode.js';
export {
  ENGINES,
  type Engine,
  type EngineChoice,
  type EngineName,
  type EngineOptions,
  openEngine,
} from './engine/index.js';
export {
  AlitokError,
  CheckpointError,
  ConfigError,
  DataError,
  EngineError,
  Interrupted,
  OutputError,
  TrainingError,
} from './errors.js';
export type { EvaluateSamplesOptions, GenerationResult } from './eval/evaluate-samples.js';
export type { EvaluateTokenizerOptions, ReconstructionResult } from './eval/evaluate-tokenizer.js';
export {
  DEBUG_SCOPES,
  type DebugScope,
  type Fields,
  type Progress,
  type ProgressOptions,
  type Reporter,
} from './job/reporter.js';
export type { Stage } from './models/geometry.js';
