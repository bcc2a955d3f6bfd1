import type { TokenizerConfig } from '../../../../src/models/geometry.js';
import { type QuantizerName, quantizerOf } from '../../../../src/models/tokenizer/quantizers/index.js';
import { constant, type Initializer } from '../../../../src/nn/initializers.js';
import { Parameters } from '../../../../src/nn/parameters.js';
import { Random } from '../../../../src/random.js';
import { TOKENIZER } from '../../../support/small-sizes.js';

/** A quantizer by itself, with its parameters; trained weights of the published one start as `init` says. */
export function openQuantizer(
  quantizer: QuantizerName,
  config: Partial<TokenizerConfig>,
  {
    init = constant(new Float32Array()),
    clustering = false,
  }: { init?: Initializer; clustering?: boolean } = {},
) {
  const parameters = new Parameters();
  const whole = { ...TOKENIZER, l2_normalize: false, quantizer, ...config };
  const options = { commitment: 0.25, clustering, init };
  const built = quantizerOf(whole).create(parameters.scope('quantize'), whole, options);
  parameters.initialize(Random.of(1, 'quantizer'));
  return { quantizer: built, parameters };
}
