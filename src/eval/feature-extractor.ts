import { basename } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import { loadFeatureNetwork } from '../checkpoint/feature-network.js';
import { kindOf } from '../checkpoint/kinds.js';
import { loadInception } from '../checkpoint/networks.js';
import { inFloat32 } from '../engine/ops/precision.js';
import { DataError } from '../errors.js';
import type { Features } from '../models/judges/feature-network.js';
import { toTensor } from '../models/pixels.js';
import { modelChecksum, resolveModel } from '../run/layout.js';
import type { FeatureExtractor, FeatureRows } from './metrics/metric.js';

/** Runs a network and reads its features back. */
function rowsOf(forward: () => Features): FeatureRows {
  let rows: FeatureRows | undefined;
  tf.tidy(() => {
    const { pool, spatial, logits } = forward();
    const read = (tensor: tf.Tensor) => tensor.dataSync<'float32'>();
    rows = { pool: read(pool), spatial: read(spatial), logits: read(logits) };
  });
  return rows!;
}

type Network = Omit<FeatureExtractor, 'checksum' | 'dimensions'> & { imageSize: number };

/** Inception, for images of any size. Always in float32, whatever the engine's precision. */
async function openInception(file: string): Promise<Network> {
  const network = await loadInception(file);
  return {
    name: 'Inception of December 2015',
    preprocessing:
      'bilinear to 299 × 299 as TensorFlow 1 resizes (corners as origin, no antialias), (x − 128) / 128',
    imageSize: 1,
    extract(images, size) {
      const pixels = tf.tensor4d(Float32Array.from(images), [
        images.length / (size * size * 3),
        size,
        size,
        3,
      ]);
      const rows = inFloat32(() => rowsOf(() => network.features(pixels)));
      pixels.dispose();
      return rows;
    },
    dispose: () => network.parameters.dispose(),
  };
}

/** The feature network of `alitok train-features`, for images of the size it was trained on. */
async function openFeatureNetwork(file: string, path: string): Promise<Network> {
  const network = await loadFeatureNetwork(file);
  const { image_size: imageSize } = network.config;
  return {
    name: 'feature network of alitok train-features',
    preprocessing: 'x / 127.5 − 1',
    imageSize,
    extract(images, size) {
      if (size !== imageSize)
        throw new DataError(
          `${path} was trained on images of ${imageSize} px, these have ${size}; train features on images of that size`,
        );
      return rowsOf(() => network.forward(toTensor(images, size)));
    },
    dispose: () => network.parameters.dispose(),
  };
}

const NO_FEATURES: FeatureRows = {
  pool: new Float32Array(),
  spatial: new Float32Array(),
  logits: new Float32Array(),
};

/**
 * Opens the network at `path` as an extractor: Inception, as pytorch-fid's file or as TensorFlow's graph, or the feature
 * network of `alitok train-features`. Throws CheckpointError if `path` holds neither; `extract` throws DataError for
 * images of a size that the network does not take.
 */
export async function openFeatureExtractor(path: string): Promise<FeatureExtractor> {
  const file = await resolveModel(path);
  const own = (await kindOf(file)) === 'feature-network';
  const { imageSize, ...network } = await (own ? openFeatureNetwork(file, path) : openInception(file));
  const { pool, spatial, logits } = network.extract(new Uint8Array(imageSize ** 2 * 3), imageSize);
  return {
    ...network,
    extract: (images, size) => (images.length > 0 ? network.extract(images, size) : NO_FEATURES),
    checksum: await modelChecksum(file),
    dimensions: { pool: pool.length, spatial: spatial.length, logits: logits.length },
  };
}

/** What every result says about its feature network. */
export function describeExtractor(extractor: FeatureExtractor, path: string) {
  return {
    features: `${extractor.name}, ${basename(path)}`,
    features_sha256: extractor.checksum,
    preprocessing: extractor.preprocessing,
  };
}
