import { FeatureNetwork, type FeatureNetworkConfig } from '../models/judges/feature-network.js';
import { resolveModel } from '../run/layout.js';
import { type ModelDescription, saveModel, withModel } from './model-file.js';

interface FeatureNetworkDescription extends ModelDescription {
  kind: 'feature-network';
  network: FeatureNetworkConfig;
  classNames: string[];
}

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
    'feature-network',
    async (file, { network }) => {
      const model = new FeatureNetwork(network);
      await model.parameters.load(file);
      return model;
    },
  );
}
