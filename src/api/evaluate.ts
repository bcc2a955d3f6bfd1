import { forLibrary } from '../errors.js';
import {
  type EvaluateSamplesOptions,
  evaluateSamples,
  type GenerationResult,
} from '../eval/evaluate-samples.js';
import {
  type EvaluateTokenizerOptions,
  evaluateTokenizer,
  type ReconstructionResult,
} from '../eval/evaluate-tokenizer.js';
import type { Reporter } from '../job/reporter.js';

/** Hears nothing; for a program that shows its own progress, or none. */
const silent: Reporter = {
  progress: () => ({ update() {}, stop() {} }),
  info() {},
  warn() {},
};

/** A reporter whose messages name options as the library does. */
function forProgram(reporter: Reporter): Reporter {
  return {
    progress: (options) => reporter.progress(options),
    info: (message) => reporter.info(forLibrary(message)),
    warn: (message) => reporter.warn(forLibrary(message)),
  };
}

/**
 * The generation metrics of samples against a reference, as `alitok eval generation` gives them; `reporter` hears of
 * progress and of files that are passed over. @throws DataError for the images, CheckpointError for the network's file
 */
export async function evaluateGeneration(
  options: EvaluateSamplesOptions,
  reporter: Reporter = silent,
): Promise<GenerationResult> {
  return (await evaluateSamples(options, { reporter: forProgram(reporter) }))!; // a process by itself has the result
}

/**
 * The reconstruction metrics of a tokenizer on images, as `alitok eval reconstruction` gives them.
 * @throws DataError for the images, CheckpointError for the files of tokenizer and networks
 */
export async function evaluateReconstruction(
  options: EvaluateTokenizerOptions,
  reporter: Reporter = silent,
): Promise<ReconstructionResult> {
  return (await evaluateTokenizer(options, { reporter: forProgram(reporter) }))!;
}
