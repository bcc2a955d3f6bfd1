/**
 * Floating-point operations (multiplications and additions) of one image's forward pass, by the prefix of the parameters
 * that they are made with. Only matrix products and convolutions count, which are nearly all of them; causal attention
 * counts in full.
 */
export type Flops = ReadonlyMap<string, number>;

/** The sum of all, or of those made with the parameters whose names begin with `prefix`. */
export const totalFlops = (flops: Flops, prefix = ''): number =>
  [...flops].reduce((sum, [name, count]) => sum + (`${name}.`.startsWith(prefix) ? count : 0), 0);

/** A layer from `inputs` to `outputs` channels at `positions` positions. */
export const product = (positions: number, inputs: number, outputs: number): number =>
  2 * positions * inputs * outputs;

/** Queries by keys, and weights by values, of all heads. */
export const attentionFlops = (positions: number, width: number): number =>
  2 * product(positions, width, positions);
