import type { Limits } from '../../bench/measure.js';

/** What a machine can do at best, as lines of a table. */
export function limitsText({ bandwidth, matrixRate }: Limits): [name: string, value: string][] {
  return [
    ['reads', `${(bandwidth / 1e9).toFixed(1)} GB/s, which is what decoding needs`],
    ['multiplies', `${(matrixRate / 1e9).toFixed(0)} GFLOP/s, which is what training needs`],
  ];
}
