import type * as tf from '@tensorflow/tfjs';
import type { Stage } from '../../src/models/geometry.js';
import { Tokenizer } from '../../src/models/tokenizer/tokenizer.js';
import { NCHW_TO_NHWC, openGolden } from './golden.js';

/** The reference's small tokenizer, and the input images of its values. */
export async function openTokenizer(stage: Stage) {
  const golden = await openGolden(`tokenizer_stage${stage}`);
  const size = (key: string) => Number(golden.metadata[key]);
  const transformer = (part: string) => ({
    width: size(`${part}_width`),
    layers: size(`${part}_layers`),
    heads: size(`${part}_heads`),
  });
  const tokenizer = new Tokenizer(
    {
      image_size: size('image_size'),
      patch_size: size('patch_size'),
      codebook_size: size('codebook_size'),
      token_size: size('token_size'),
      encoder: transformer('enc'),
      decoder: { ...transformer('dec'), class_tokens: 32 },
      l2_normalize: false,
    },
    stage,
  );
  await golden.load(tokenizer.parameters);
  const images = golden.tensor('x').transpose(NCHW_TO_NHWC) as tf.Tensor4D;
  return { golden, tokenizer, images };
}
