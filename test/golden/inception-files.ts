import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { writePytorch } from '../../src/formats/pytorch/write.js';
import { constantNode, operationNode, versionField } from '../graph-file.js';
import { formulaWeights, names } from './formula-weights.js';

/** Scopes of TensorFlow's graph, and the layers that pytorch-fid made of them. */
const layers = new Map(
  (await readFile(fileURLToPath(new URL('../fixtures/inception-graph.txt', import.meta.url)), 'utf8'))
    .trim()
    .split('\n')
    .map((line) => line.split(' ') as [string, string]),
);

/** A file of Inception as pytorch-fid has it, with formula weights. */
export async function writeInceptionPytorch(path: string, seed: number): Promise<void> {
  const tensors = names.inception.map(([name, shape], j) => ({
    name,
    dtype: 'F32' as const,
    shape,
    data: () => formulaWeights(name, shape, seed + j),
  }));
  await writePytorch(path, tensors);
}

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

/** The same weights as TensorFlow's graph has them: the constants among other nodes. */
export async function writeInceptionGraph(path: string, seed: number): Promise<void> {
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
}
