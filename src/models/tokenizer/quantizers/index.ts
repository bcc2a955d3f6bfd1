import type { TokenizerConfig } from '../../geometry.js';
import { fsq } from './fsq.js';
import type { QuantizerKind } from './quantizer.js';
import { simvq } from './simvq.js';
import { vector } from './vector.js';

/** All quantizers, by their name in the config (`tokenizer.quantizer`). */
export const QUANTIZERS = { vq: vector, fsq, simvq } satisfies Record<string, QuantizerKind>;

export type QuantizerName = keyof typeof QUANTIZERS;

export const QUANTIZER_NAMES = Object.keys(QUANTIZERS) as QuantizerName[];

/** The published quantizer. Files that were written before there were others do not name one; it is theirs. */
export const PUBLISHED_QUANTIZER = 'vq' satisfies QuantizerName;

/** The quantizer of a tokenizer. */
export function quantizerOf({ quantizer = PUBLISHED_QUANTIZER }: TokenizerConfig): QuantizerKind {
  return QUANTIZERS[quantizer as QuantizerName];
}

/**
 * What is wrong with the settings of a tokenizer's quantizer, and the key of the config section `tokenizer` that it is
 * about; undefined where they are sound.
 */
export function checkQuantizer(config: TokenizerConfig): { key: string; message: string } | undefined {
  const chosen = quantizerOf(config);
  for (const [name, kind] of Object.entries<QuantizerKind>(QUANTIZERS))
    for (const key of kind.settings)
      if (kind !== chosen && config[key])
        return {
          key,
          message: `is read by tokenizer.quantizer=${name} alone, but the quantizer is ${config.quantizer}; leave it out`,
        };
  return chosen.check?.(config);
}

/** A tokenizer's quantizer in words, with its settings. */
export function quantizerText(config: TokenizerConfig): string {
  const { title, settings } = quantizerOf(config);
  const set = settings.filter((key) => config[key]).map((key) => `, ${key} ${JSON.stringify(config[key])}`);
  return `${config.quantizer ?? PUBLISHED_QUANTIZER}, ${title}${set.join('')}`;
}
