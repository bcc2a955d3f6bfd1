import { splitImages } from '../../data/images/split.js';
import type { ReconstructionMeasurement, Reconstructions } from './metric.js';

/** Measures each image against its reconstruction in float64, and gives the mean over images as `name`. */
export function imageMean<Name extends string>(
  name: Name,
  imageSize: number,
  compare: (original: Uint8Array, reconstruction: Uint8Array) => number,
): ReconstructionMeasurement<Record<Name, number>, { values: Float64Array }> {
  let total = 0;
  return {
    measure({ originals, reconstructions }: Reconstructions) {
      const others = splitImages(reconstructions, imageSize);
      return {
        values: Float64Array.from(splitImages(originals, imageSize), (image, i) => compare(image, others[i])),
      };
    },
    add({ values }) {
      total += values.reduce((sum, value) => sum + value, 0);
    },
    result: (images) => ({ [name]: total / images }) as Record<Name, number>,
  };
}
