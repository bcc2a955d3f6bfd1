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

/** Reports nothing, for programs that show their own progress or none. */
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
    ...(reporter.debug && {
      debug: (scope, message) =>
        reporter.debug!(scope, () => forLibrary(typeof message === 'string' ? message : message())),
    }),
  };
}

/**
 * The generation metrics of samples against a reference, as `alitok eval generation` computes them. `reporter` gets the
 * progress, and warnings about files that are skipped.
 * @throws DataError for the images, CheckpointError for the network's file
 */
export async function evaluateGeneration(
  options: EvaluateSamplesOptions,
  reporter: Reporter = silent,
): Promise<GenerationResult> {
  return (await evaluateSamples(options, { reporter: forProgram(reporter) }))!; // only ranks above 0 get no result
}

/**
 * The reconstruction metrics of a tokenizer on images, as `alitok eval reconstruction` computes them.
 * @throws DataError for the images, CheckpointError for the files of tokenizer and networks
 */
export async function evaluateReconstruction(
  options: EvaluateTokenizerOptions,
  reporter: Reporter = silent,
): Promise<ReconstructionResult> {
  return (await evaluateTokenizer(options, { reporter: forProgram(reporter) }))!;
}
