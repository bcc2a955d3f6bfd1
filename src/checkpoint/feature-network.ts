import { z } from 'zod';
import { FeatureNetwork, type FeatureNetworkConfig } from '../models/judges/feature-network.js';
import { resolveModel } from '../run/layout.js';
import { type ModelDescription, classNames as names, side, size } from './description.js';
import { saveModel, withModel } from './model-file.js';

interface FeatureNetworkDescription extends ModelDescription {
  kind: 'feature-network';
  network: FeatureNetworkConfig;
  classNames: string[];
}

/** A feature network's description in its file. */
export const featureNetworkDescription = z.looseObject({
  kind: z.literal('feature-network'),
  network: z.looseObject({ image_size: side, classes: size, channels: z.array(size).min(1).max(64) }),
  classNames: names,
});

export async function saveFeatureNetwork(
  path: string,
  network: FeatureNetwork,
  classNames: readonly string[],
): Promise<void> {
  const description: FeatureNetworkDescription = {
    kind: 'feature-network',
    network: network.config,
    classNames: [...classNames],
  };
  await saveModel(path, network.parameters, description);
}

/** Builds the feature network of a model file or run folder and loads it, strictly. Throws CheckpointError. */
export async function loadFeatureNetwork(path: string): Promise<FeatureNetwork> {
  return withModel<FeatureNetworkDescription, FeatureNetwork>(
    await resolveModel(path),
    { kind: 'feature-network', schema: featureNetworkDescription },
    async (file, { network }) => {
      const model = new FeatureNetwork(network);
      await model.parameters.load(file);
      return model;
    },
  );
}
