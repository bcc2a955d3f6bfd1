import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { writePytorch } from '../../src/formats/pytorch/write.js';
import type { TensorData } from '../../src/formats/tensor-file.js';
import { LPIPS } from '../../src/models/judges/lpips.js';
import { VGG16 } from '../../src/models/judges/vgg16.js';
import type { Parameters } from '../../src/nn/parameters.js';
import { constantNode, operationNode, versionField } from '../support/graph-file.js';
import { linkShared } from '../support/made-once.js';
import { formulaWeights, names } from './formula-weights.js';

/** Scopes of TensorFlow's graph, and pytorch-fid's names of the same layers. */
const layers = new Map(
  (await readFile(fileURLToPath(new URL('../fixtures/inception-graph.txt', import.meta.url)), 'utf8'))
    .trim()
    .split('\n')
    .map((line) => line.split(' ') as [string, string]),
);

/** A state dict of formula weights as a PyTorch file, with other tensors after them. */
async function write(
  path: string,
  shapes: readonly [name: string, shape: readonly number[]][],
  { seed, map = (x) => x, more = [] }: { seed: number; map?: (x: number) => number; more?: TensorData[] },
): Promise<void> {
  const sorted = shapes.map(([name]) => name).sort();
  const tensors = shapes.map(([name, shape]) => ({
    name,
    dtype: 'F32' as const,
    shape,
    data: () => formulaWeights(name, shape, seed + sorted.indexOf(name)).map(map),
  }));
  await writePytorch(path, [...tensors, ...more]);
}

const shapesOf = (parameters: Parameters) =>
  [...parameters].map(({ name, shape }): [string, readonly number[]] => [name, shape]);

/** Returns a function that writes a network's file of formula weights, once per test run. The goldens use the default seed. */
const network =
  (name: string, ownSeed: number, writeFresh: (path: string, seed: number) => Promise<void>) =>
  (path: string, seed = ownSeed) =>
    linkShared(`${name}-${seed}`, path, (fresh) => writeFresh(fresh, seed));

/** An Inception file in pytorch-fid's format. */
export const writeInceptionPytorch = network('inception.pth', 341, (path, seed) =>
  write(path, names.inception, { seed }),
);

/** torchvision's file of VGG-16, whose classifier is not used here. */
export const writeVGG16 = network('vgg16.pth', 41, (path, seed) =>
  write(path, shapesOf(new VGG16().parameters), {
    seed,
    more: [{ name: 'classifier.6.bias', dtype: 'F32', shape: [1000], data: new Float32Array(1000) }],
  }),
);

export const writeLPIPS = network('lpips.pth', 141, (path, seed) =>
  write(path, shapesOf(new LPIPS().lins), { seed, map: Math.abs }),
);

export const writeConvNeXt = network('convnext.pth', 241, (path, seed) =>
  write(path, names.convnext, { seed }),
);

/** Elements (out, in, h, w) as (h, w, in, out), and (out, in) as (in, out). */
function toTensorFlow(values: Float32Array, [outputs, inputs, height = 1, width = 1]: readonly number[]) {
  const result = new Float32Array(values.length);
  let from = 0;
  for (let o = 0; o < outputs; o++)
    for (let i = 0; i < inputs; i++)
      for (let y = 0; y < height; y++)
        for (let x = 0; x < width; x++) result[((y * width + x) * inputs + i) * outputs + o] = values[from++];
  return result;
}

/** The same weights in a TensorFlow graph, as constants among other nodes. */
export const writeInceptionGraph = network('inception.pb', 341, async (path, seed) => {
  const weights = new Map(names.inception.map(([name, shape], j) => [name, { shape, seed: seed + j }]));
  const read = (name: string) => {
    const { shape, seed: own } = weights.get(name)!;
    return { shape, values: formulaWeights(name, shape, own) };
  };
  const matrix = (to: string, from: string) => {
    const { shape, values } = read(from);
    const reordered = shape.length === 4 ? [2, 3, 1, 0].map((axis) => shape[axis]) : [...shape].reverse();
    return constantNode({ name: to, shape: reordered, values: toTensorFlow(values, shape) });
  };
  const vector = (to: string, from: string) => constantNode({ name: to, ...read(from) });
  const nodes = [operationNode('DecodeJpeg', 'DecodeJpeg', 'DecodeJpeg/contents')];
  for (const [scope, layer] of layers) {
    nodes.push(matrix(`${scope}/conv2d_params`, `${layer}.conv.weight`));
    nodes.push(operationNode(`${scope}/Conv2D`, 'Conv2D', `${scope}/conv2d_params`));
    nodes.push(vector(`${scope}/batchnorm/beta`, `${layer}.bn.bias`));
    nodes.push(vector(`${scope}/batchnorm/gamma`, `${layer}.bn.weight`));
    nodes.push(vector(`${scope}/batchnorm/moving_mean`, `${layer}.bn.running_mean`));
    nodes.push(vector(`${scope}/batchnorm/moving_variance`, `${layer}.bn.running_var`));
  }
  nodes.push(matrix('softmax/weights', 'fc.weight'), vector('softmax/biases', 'fc.bias'));
  await writeFile(path, Buffer.concat([...nodes, versionField(8)]));
});
