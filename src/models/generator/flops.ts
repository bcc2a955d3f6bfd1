import { attentionFlops, type Flops, product } from '../flops.js';
import type { GeneratorConfig } from '../geometry.js';
import { hiddenWidth } from './generator.js';

/** Of the whole sequence at once, as in training; sampling it with a cache takes about as many. */
export function generatorFlops(config: GeneratorConfig): Flops {
  const { width, layers, codebook_size, prefix_tokens, grid } = config;
  const positions = 1 + prefix_tokens + grid * grid;
  const layer =
    product(positions, width, 4 * width) +
    product(positions, width, 3 * hiddenWidth(width)) +
    attentionFlops(positions, width);
  return new Map([
    ['blocks', layers * layer],
    ['output', product(positions, width, codebook_size)],
  ]);
}
