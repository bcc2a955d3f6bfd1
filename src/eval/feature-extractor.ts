import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import * as tf from '@tensorflow/tfjs';
import { loadFeatureNetwork } from '../checkpoint/feature-network-file.js';
import { resolveModel } from '../checkpoint/run-files.js';
import { DataError } from '../errors.js';
import { toTensor } from '../models/pixels.js';

/** Features of B images, row-major. */
export interface FeatureRows {
  /** (B, dimensions.pool): what FID, precision and recall compare. */
  pool: Float32Array;
  /** (B, dimensions.spatial): what sFID compares. */
  spatial: Float32Array;
  /** (B, dimensions.logits): what the inception score is made of. */
  logits: Float32Array;
}

/** A network that generation is judged by. */
export interface FeatureExtractor {
  name: string;
  /** SHA-256 of its weights' file, to be reported with every result. */
  checksum: string;
  dimensions: Record<keyof FeatureRows, number>;
  /** images: uint8 (B, size, size, 3) */
  extract(images: Uint8Array, size: number): FeatureRows;
  dispose(): void;
}

async function checksum(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const part of createReadStream(path)) hash.update(part as Buffer);
  return hash.digest('hex');
}

/**
 * The feature network of `alitok train-features` as an extractor. Throws CheckpointError if `path` holds none, and
 * DataError for images of another size than it was trained on.
 */
export async function openFeatureExtractor(path: string): Promise<FeatureExtractor> {
  const file = await resolveModel(path);
  const network = await loadFeatureNetwork(path);
  const { image_size } = network.config;
  const run = (images: Uint8Array): FeatureRows => {
    let features: FeatureRows | undefined;
    tf.tidy(() => {
      const { pool, spatial, logits } = network.forward(toTensor(images, image_size));
      const rows = (tensor: tf.Tensor) => tensor.dataSync<'float32'>();
      features = { pool: rows(pool), spatial: rows(spatial), logits: rows(logits) };
    });
    return features!;
  };
  const { pool, spatial, logits } = run(new Uint8Array(image_size ** 2 * 3));
  return {
    name: 'feature network of alitok train-features',
    checksum: await checksum(file),
    dimensions: { pool: pool.length, spatial: spatial.length, logits: logits.length },
    extract(images, size) {
      if (size !== image_size)
        throw new DataError(
          `${path} was trained on images of ${image_size} px, these have ${size}; train features on images of that size`,
        );
      return run(images);
    },
    dispose: () => network.parameters.dispose(),
  };
}
