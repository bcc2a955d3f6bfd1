import * as tf from '@tensorflow/tfjs';
import { loadLPIPS } from '../../checkpoint/networks.js';
import { inFloat32 } from '../../engine/ops/precision.js';
import { DataError } from '../../errors.js';
import { fileChecksum } from '../../files/bytes.js';
import { type LPIPS, LPIPS_SMALLEST } from '../../models/judges/lpips.js';
import { toTensor } from '../../models/pixels.js';
import type { ReconstructionMetric, Reconstructions } from './metric.js';

/** Images compared at once: VGG-16 takes 100 MB for one of 256 px. */
const BATCH = 4;

export interface LpipsValues {
  /** The mean over images of 8-bit reconstructions; absent without the files of LPIPS. */
  lpips: number;
  lpips_sha256: { vgg16: string; lpips: string };
}

/** Sum of the LPIPS distances between images and their reconstructions. */
function sumOfDistances(
  network: LPIPS,
  { originals, reconstructions }: Reconstructions,
  size: number,
): number {
  const part = BATCH * size * size * 3;
  let sum = 0;
  for (let start = 0; start < originals.length; start += part)
    sum += tf.tidy(() => {
      const [x, y] = [originals, reconstructions].map((all) =>
        toTensor(all.subarray(start, start + part), size),
      );
      return inFloat32(() => network.distances(x, y).sum().dataSync()[0]);
    });
  return sum;
}

/** Learned perceptual distance of VGG-16's activations (Zhang et al., 2018). */
export const lpips: ReconstructionMetric<LpipsValues> = {
  name: 'LPIPS',
  needs: 'lpips',
  async start({ imageSize, tokenizer, lpips }) {
    if (imageSize < LPIPS_SMALLEST)
      throw new DataError(
        `LPIPS needs images of ${LPIPS_SMALLEST} px at least, but those of ${tokenizer} are ${imageSize} px; leave its files out`,
      );
    const files = lpips!;
    const network = await loadLPIPS(files);
    let total = 0;
    return {
      measure: (batch) => ({ sum: Float64Array.of(sumOfDistances(network, batch, imageSize)) }),
      add({ sum }: { sum: Float64Array }) {
        total += sum[0];
      },
      result: async (images) => ({
        lpips: total / images,
        lpips_sha256: { vgg16: await fileChecksum(files.vgg16), lpips: await fileChecksum(files.lpips) },
      }),
      dispose: () => network.dispose(),
    };
  },
};
