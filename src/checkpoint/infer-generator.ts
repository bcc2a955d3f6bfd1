import { type PublishedModel, publishedModels } from '../config/published.js';
import { CheckpointError } from '../errors.js';
import type { TensorFile } from '../formats/tensor-file.js';
import { type GeneratorConfig, tokenizerGeometry } from '../models/geometry.js';
import { layersOf, shapeOf } from './infer.js';

/** What no tensor of a generator shows: how an image's tokens lie. */
export type TokenGrid = Pick<GeneratorConfig, 'prefix_tokens' | 'grid'>;

/** The published model of the same width, layers, heads, classes and codebook, with its name, if there is one. */
export function publishedGenerator(
  sizes: GeneratorConfig,
): [name: string, model: PublishedModel] | undefined {
  return [...publishedModels()].find(([, { generator, tokenizer }]) => {
    const same = (['width', 'layers', 'heads', 'classes'] as const).every(
      (key) => generator[key] === sizes[key],
    );
    return same && tokenizer.codebook_size === sizes.codebook_size;
  });
}

/**
 * Reads the sizes of a generator from its tensors; `grid` is that of the tokenizer, without one the published.
 * @throws CheckpointError where the tensors do not fit together
 */
export function inferGenerator(file: TensorFile, grid?: TokenGrid): GeneratorConfig {
  const { prefix_tokens, grid: side } =
    grid ?? tokenizerGeometry([...publishedModels().values()][0].tokenizer);
  const [vocabulary, width] = shapeOf(file, 'embeddings.weight', 2);
  const [codebook_size] = shapeOf(file, 'output.weight', 2);
  const [headWidth] = shapeOf(file, 'blocks.0.attn.q_norm.weight', 1);
  const classes = vocabulary - codebook_size - 2;
  const heads = width / headWidth;
  if (classes < 1 || !Number.isInteger(heads))
    throw new CheckpointError(
      `${file.path}: a vocabulary of ${vocabulary} for ${codebook_size} codes, or heads of ${headWidth} of ${width} channels, are none of a generator`,
    );
  const layers = layersOf(file.tensors, 'blocks');
  return { width, layers, heads, classes, codebook_size, prefix_tokens, grid: side };
}
