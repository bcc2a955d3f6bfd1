import type { TokenizerConfig } from '../../../../src/models/geometry.js';
import { type QuantizerName, quantizerOf } from '../../../../src/models/tokenizer/quantizers/index.js';
import { constant, type Initializer } from '../../../../src/nn/initializers.js';
import { Parameters } from '../../../../src/nn/parameters.js';
import { Random } from '../../../../src/random.js';
import { TOKENIZER } from '../../../support/small-sizes.js';

/** A standalone quantizer with its parameters; `init` sets the initial values of the published one's trained weights. */
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
