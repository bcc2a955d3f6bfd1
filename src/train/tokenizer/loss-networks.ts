import { checkNetworkFile, loadConvNeXtSmall, loadLPIPS, NETWORK_FILES } from '../../checkpoint/networks.js';
import type { Config } from '../../config/schema.js';
import { ConfigError } from '../../errors.js';
import { fileChecksum } from '../../files/bytes.js';
import type { Stage } from '../../models/geometry.js';
import { LPIPS_SMALLEST } from '../../models/judges/lpips.js';
import { classifierTerm, lpipsTerm, type PerceptualTerms } from '../../models/judges/perceptual.js';

type Key = keyof Config['networks'];

/** The files that each perceptual weight needs, by the names that `recognise` gives them. */
const NEEDED: Record<'w_lpips' | 'w_perc', Partial<Record<Key, string>>> = {
  w_lpips: { vgg16: 'VGG-16', lpips: 'LPIPS weights' },
  w_perc: { convnext: 'ConvNeXt-S' },
};

/** The networks of the perceptual terms that have a weight in some phase of a stage. */
export interface LossNetworks {
  terms: PerceptualTerms;
  /** Checksums of their files by config key, for the record of the run. */
  inputs: Record<string, string>;
  dispose(): void;
}

/**
 * Which perceptual terms a stage needs files for.
 * @throws ConfigError where the config does not name them, or its images are too small
 */
export function requireNetworks(
  { tokenizer: { image_size }, tokenizer_training, networks }: Config,
  stage: Stage,
): Set<keyof typeof NEEDED> {
  const needed = new Set<keyof typeof NEEDED>();
  tokenizer_training[`stage${stage}`].phases.forEach((phase, i) => {
    for (const weight of ['w_lpips', 'w_perc'] as const) {
      if (phase[weight] === 0) continue;
      needed.add(weight);
      const key = `tokenizer_training.stage${stage}.phases.${i}.${weight}`;
      if (weight === 'w_lpips' && image_size < LPIPS_SMALLEST)
        throw new ConfigError(
          `tokenizer.image_size is ${image_size}, but ${key} is ${phase[weight]} and LPIPS needs images of ${LPIPS_SMALLEST} px at least; make them larger, or set ${key}=0 to train without`,
        );
      const missing = Object.entries(NEEDED[weight]).filter(([key]) => networks[key as Key] === null);
      if (missing.length === 0) continue;
      const files = missing.map(([name, file]) => `networks.${name} (${NETWORK_FILES[file].origin})`);
      throw new ConfigError(
        `${key} is ${phase[weight]}, which needs ${files.join(' and ')}; name the file${files.length > 1 ? 's' : ''}, or set ${key}=0 to train without`,
      );
    }
  });
  return needed;
}

/**
 * Checks the files of the networks that any of the stages needs, before the first of them trains for hours.
 * @throws ConfigError as `requireNetworks`, CheckpointError for a file that is not what it should be
 */
export async function checkLossNetworks(config: Config, stages: readonly Stage[]): Promise<void> {
  const needed = stages.flatMap((stage) => [...requireNetworks(config, stage)]);
  const files = Object.assign({}, ...needed.map((weight) => NEEDED[weight])) as Record<Key, string>;
  for (const [key, network] of Object.entries(files))
    await checkNetworkFile(config.networks[key as Key]!, network);
}

/**
 * Loads the networks that a stage needs, and no others.
 * @throws ConfigError as `requireNetworks`, CheckpointError for a file that is not what it should be
 */
export async function openLossNetworks(config: Config, stage: Stage): Promise<LossNetworks> {
  const needed = requireNetworks(config, stage);
  const { vgg16, lpips, convnext } = config.networks;
  const inputs: LossNetworks['inputs'] = {};
  for (const weight of needed)
    for (const key of Object.keys(NEEDED[weight]) as Key[])
      inputs[`networks.${key}`] = `SHA-256 ${await fileChecksum(config.networks[key]!)}`;
  const distance = needed.has('w_lpips') ? await loadLPIPS({ vgg16: vgg16!, lpips: lpips! }) : undefined;
  const classifier = needed.has('w_perc')
    ? await loadConvNeXtSmall(convnext!).catch((error) => {
        distance?.dispose();
        throw error;
      })
    : undefined;
  return {
    terms: {
      lpips: distance && lpipsTerm(distance),
      classifier: classifier && classifierTerm(classifier),
    },
    inputs,
    dispose() {
      distance?.dispose();
      classifier?.parameters.dispose();
    },
  };
}
