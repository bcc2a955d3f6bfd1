import { CheckpointError } from '../errors.js';
import type { TensorFile, TensorInfo } from '../formats/tensor-file.js';

type Tensors = ReadonlyMap<string, TensorInfo>;

/** Tensor names that identify a network, by the network's name. */
const NETWORKS: Record<string, readonly string[]> = {
  tokenizer: ['latent_tokens', 'encoder.patch_embed.weight', 'decoder.decoder_embed.weight'],
  generator: ['embeddings.weight', 'blocks.0.attn.q_norm.weight', 'output.weight'],
  Inception: ['Conv2d_1a_3x3.conv.weight', 'Mixed_6d.branch1x1.conv.weight', 'fc.weight'],
  'Inception graph': ['conv/conv2d_params', 'mixed_6/conv/conv2d_params', 'softmax/weights'],
  'VGG-16': ['features.0.weight', 'features.10.weight', 'features.28.weight'],
  'ConvNeXt-S': ['features.0.0.weight', 'features.5.26.layer_scale', 'classifier.2.weight'],
  'LPIPS weights': ['lin0.model.1.weight', 'lin4.model.1.weight'],
};

/** Which network a file's tensors belong to, by their names; undefined for an unknown one. */
export function recognise(tensors: Tensors): string | undefined {
  return Object.keys(NETWORKS).find((network) => NETWORKS[network].every((name) => tensors.has(name)));
}

/** The shape of a tensor that sizes are read from. @throws CheckpointError if it has not this number of dimensions */
export function shapeOf({ path, tensors }: TensorFile, name: string, dimensions: number): readonly number[] {
  const shape = tensors.get(name)?.shape;
  if (shape?.length === dimensions && shape.every((size) => size > 0)) return shape;
  const found = shape ? `is [${shape}]` : 'is missing';
  throw new CheckpointError(
    `${path}: ${name}, with ${dimensions} dimensions, ${found}, so that its sizes cannot be read; fetch it again`,
  );
}

/** The number of layers, from `prefix.0` to `prefix.N−1`. */
export function layersOf(tensors: Tensors, prefix: string): number {
  let layers = 0;
  const names = new Set(
    [...tensors.keys()].map((name) =>
      name.startsWith(prefix) ? name.slice(prefix.length + 1).split('.')[0] : '',
    ),
  );
  while (names.has(String(layers))) layers++;
  return layers;
}
