import type { TensorFile } from '../formats/tensor-file.js';
import { ConvNeXtSmall } from '../models/judges/convnext.js';
import { Inception } from '../models/judges/inception.js';
import { LPIPS } from '../models/judges/lpips.js';
import { VGG16 } from '../models/judges/vgg16.js';
import type { ParameterSource, Parameters } from '../nn/parameters.js';
import { fromGraph } from './inception-graph.js';
import { recognise } from './infer.js';
import { anotherModel } from './model-file.js';
import { openTensorFile } from './open.js';

/** A third-party file of a trained network. */
interface NetworkFile {
  /** The project that publishes it, and its name there. */
  origin: string;
  /** Its parameters, without values. */
  declare: () => Parameters;
  /** Tensors of the file that are not used here. */
  ignore?: RegExp;
  /** The file's tensors under the parameters' names. */
  read?: (file: ParameterSource, parameters: Parameters) => ParameterSource;
}

/** Counters of training steps, which newer PyTorch versions add to batch normalisation. */
const COUNTERS = /\.num_batches_tracked$/;

/** The known files, by the name that `recognise` gives them. */
export const NETWORK_FILES: Readonly<Record<string, NetworkFile>> = {
  Inception: {
    origin: "pytorch-fid's pt_inception-2015-12-05-6726825d.pth",
    declare: () => new Inception().parameters,
    ignore: COUNTERS,
  },
  'Inception graph': {
    origin: "the ADM evaluator's classify_image_graph_def.pb",
    declare: () => new Inception().parameters,
    read: (file, parameters) =>
      fromGraph(
        file,
        [...parameters].map(({ name }) => name),
      ),
  },
  'VGG-16': {
    origin: "torchvision's vgg16-397923af.pth",
    declare: () => new VGG16().parameters,
    ignore: /^classifier\./,
  },
  'LPIPS weights': {
    origin: "the PerceptualSimilarity project's lpips/weights/v0.1/vgg.pth",
    declare: () => new LPIPS().lins,
  },
  'ConvNeXt-S': {
    origin: "torchvision's convnext_small-0c510722.pth",
    declare: () => new ConvNeXtSmall().parameters,
  },
};

/** Throws CheckpointError, listing names, unless a file's tensors are those of a known network. */
export function checkNetwork(network: string, file: ParameterSource): void {
  const { declare, ignore, read } = NETWORK_FILES[network];
  const parameters = declare();
  parameters.check(read?.(file, parameters) ?? file, { ignore });
}

/**
 * Opens a file that `recognise` must know as one of `networks`, passes it on, and closes it afterwards.
 * @throws CheckpointError if it is another file
 */
async function withNetwork<T>(
  path: string,
  networks: readonly string[],
  use: (file: TensorFile, network: string) => Promise<T>,
): Promise<T> {
  const file = await openTensorFile(path);
  try {
    const found = recognise(file.tensors);
    if (found === undefined || !networks.includes(found)) throw anotherModel(path, found, networks[0]);
    return await use(file, found);
  } finally {
    await file.close();
  }
}

/** Throws CheckpointError unless the file at `path` holds a known network, strictly; its tensors are not read. */
export async function checkNetworkFile(path: string, network: string): Promise<void> {
  await withNetwork(path, [network], async (file) => checkNetwork(network, file));
}

/** Loads `parameters` from the file at `path`, strictly; it must be one of `networks`. Throws CheckpointError. */
async function load(path: string, networks: readonly string[], parameters: Parameters): Promise<void> {
  await withNetwork(path, networks, async (file, network) => {
    const { ignore, read } = NETWORK_FILES[network];
    await parameters.load(read?.(file, parameters) ?? file, { ignore });
  });
}

/** Inception, from pytorch-fid's file or from TensorFlow's graph. Throws CheckpointError. */
export async function loadInception(path: string): Promise<Inception> {
  const inception = new Inception();
  await load(path, ['Inception', 'Inception graph'], inception.parameters);
  return inception;
}

/** LPIPS, from torchvision's file of VGG-16 and its own file of weights. Throws CheckpointError. */
export async function loadLPIPS(files: { vgg16: string; lpips: string }): Promise<LPIPS> {
  const lpips = new LPIPS();
  try {
    await load(files.lpips, ['LPIPS weights'], lpips.lins);
    await load(files.vgg16, ['VGG-16'], lpips.vgg.parameters);
    return lpips;
  } catch (error) {
    lpips.dispose();
    throw error;
  }
}

/** ConvNeXt-S, from torchvision's file. Throws CheckpointError. */
export async function loadConvNeXtSmall(path: string): Promise<ConvNeXtSmall> {
  const network = new ConvNeXtSmall();
  await load(path, ['ConvNeXt-S'], network.parameters);
  return network;
}
