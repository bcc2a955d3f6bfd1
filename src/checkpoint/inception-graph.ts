import type { ParameterSource } from '../nn/parameters.js';

/** The scope of each of pytorch-fid's blocks in the graph of December 2015. */
const BLOCKS: Record<string, string> = {
  Conv2d_1a_3x3: 'conv',
  Conv2d_2a_3x3: 'conv_1',
  Conv2d_2b_3x3: 'conv_2',
  Conv2d_3b_1x1: 'conv_3',
  Conv2d_4a_3x3: 'conv_4',
  Mixed_5b: 'mixed',
  Mixed_5c: 'mixed_1',
  Mixed_5d: 'mixed_2',
  Mixed_6a: 'mixed_3',
  Mixed_6b: 'mixed_4',
  Mixed_6c: 'mixed_5',
  Mixed_6d: 'mixed_6',
  Mixed_6e: 'mixed_7',
  Mixed_7a: 'mixed_8',
  Mixed_7b: 'mixed_9',
  Mixed_7c: 'mixed_10',
};

/** The scope of each branch of a block. Mixed_6a has no 5×5 or 7×7 branch, so its other branches are numbered lower. */
const TOWERS: Record<string, string> = {
  branch1x1: '',
  branch5x5: 'tower/',
  branch7x7: 'tower/',
  branch3x3: 'tower/',
  branch3x3dbl: 'tower_1/',
  branch7x7dbl: 'tower_1/',
  branch7x7x3: 'tower_1/',
  branch_pool: 'tower_2/',
};
const TOWERS_6A: Record<string, string> = { branch3x3: '', branch3x3dbl: 'tower/' };

const NORMALIZATION: Record<string, string> = {
  weight: 'gamma',
  bias: 'beta',
  running_mean: 'moving_mean',
  running_var: 'moving_variance',
};

/** `branch3x3_2b` → `tower/mixed/conv_1`: the branch, the position in it, and the half where it splits. */
function layerInGraph(block: string, layer: string): string {
  const [, branch, place = '1', half] = /^(.+?)(?:_(\d)([ab])?)?$/.exec(layer)!;
  const tower = (block === 'Mixed_6a' ? TOWERS_6A : TOWERS)[branch];
  const numbered = (index: number) => (index === 0 ? 'conv' : `conv_${index}`);
  return half ? `${tower}mixed/${numbered(half === 'a' ? 0 : 1)}` : `${tower}${numbered(Number(place) - 1)}`;
}

/** The name in the graph of one of pytorch-fid's tensors. */
function nameInGraph(name: string): string {
  if (name.startsWith('fc.')) return name === 'fc.weight' ? 'softmax/weights' : 'softmax/biases';
  const parts = name.split('.');
  const [kind, tensor] = parts.splice(-2);
  const [block, layer] = parts;
  const scope = layer === undefined ? BLOCKS[block] : `${BLOCKS[block]}/${layerInGraph(block, layer)}`;
  return kind === 'conv' ? `${scope}/conv2d_params` : `${scope}/batchnorm/${NORMALIZATION[tensor]}`;
}

/** A (rows, columns) matrix in column-major order. */
function transposed(values: Float32Array, rows: number, columns: number): Float32Array {
  const out = new Float32Array(values.length);
  for (let row = 0, from = 0; row < rows; row++)
    for (let column = 0; column < columns; column++) out[column * rows + row] = values[from++];
  return out;
}

/**
 * The constants of TensorFlow's graph under pytorch-fid's names and in PyTorch's layouts: convolutions (h, w, in, out)
 * as (out, in, h, w), the last layer (in, out) as (out, in).
 */
export function fromGraph(graph: ParameterSource, names: Iterable<string>): ParameterSource {
  const { path, tensors } = graph;
  const found = [...names].flatMap((name) => {
    const stored = tensors.get(nameInGraph(name))?.shape;
    if (!stored) return [];
    const shape = stored.length === 4 ? [3, 2, 0, 1].map((axis) => stored[axis]) : [...stored].reverse();
    return [[name, { shape, stored }] as const];
  });
  const own = new Map(found);
  return {
    path,
    tensors: own,
    async readFloat32(name) {
      const values = await graph.readFloat32(nameInGraph(name));
      const { stored } = own.get(name)!;
      if (stored.length === 1) return values;
      const outputs = stored[stored.length - 1];
      const byOutput = transposed(values, values.length / outputs, outputs); // (out, h, w, in) or (out, in)
      if (stored.length === 2) return byOutput;
      const [height, width, inputs] = stored;
      const size = height * width * inputs;
      const out = new Float32Array(values.length);
      for (let start = 0; start < out.length; start += size)
        out.set(transposed(byOutput.subarray(start, start + size), height * width, inputs), start);
      return out;
    },
  };
}
