import type { TensorInfo } from '@tensorflow/tfjs';
import type { DrawOptions } from '../../ops/index.js';
import type { Inputs } from './host.js';
import { inHalf, onCpu } from './products.js';
import { type Kernel, register } from './register.js';

const NORMS = ['norm1', 'qNorm', 'kNorm', 'norm2'];
const CACHES = ['k', 'v'];
const LAYERS = ['qkv', 'proj', 'w1', 'w3', 'w2'];
type Attributes = { blocks: number; packed: boolean; epsilon: number };

/** What an operator takes of each block, one block after the other. */
const ofBlocks = (inputs: Inputs, blocks: number, names: readonly string[]): (TensorInfo | undefined)[] =>
  Array.from({ length: blocks }, (_, i) => names.map((name) => inputs[`${i}.${name}`])).flat();

/** Weights, scales and biases as the CPU takes them. */
function layersOfCpu(inputs: Inputs, blocks: number, { id }: Kernel) {
  const part = (name: string) => {
    const tensors = ofBlocks(
      inputs,
      blocks,
      LAYERS.map((layer) => `${layer}.${name}`),
    );
    return tensors.map((tensor) => (tensor ? id(tensor) : null));
  };
  return [part('weight'), part('scale'), part('bias')];
}

/** The same for a CUDA device: what multiplies in bfloat16 is all in it, and w1 and w3 are one layer without a bias. */
function layersOfCuda(inputs: Inputs, blocks: number, packed: boolean, kernel: Kernel) {
  const { id, backend } = kernel;
  const half = packed || inHalf(kernel);
  const rounded = (tensor: TensorInfo | undefined) => {
    if (!tensor) return null;
    return half ? backend.halfOf(tensor) : id(tensor);
  };
  const weights = ofBlocks(inputs, blocks, ['qkv.weight', 'proj.weight', 'joined', 'w2.weight']);
  const biases = ofBlocks(inputs, blocks, ['qkv.bias', 'proj.bias', 'w1.bias', 'w2.bias']);
  return [weights.map(rounded), weights.map(() => null), biases.map(rounded)];
}

/** A decoding step in two calls; `LibtorchBackend.takesStep` says when. */
export function registerGeneratorStep(): void {
  register<Attributes>('alitok.GeneratorStep', (inputs, { blocks, packed, epsilon }, kernel) => {
    const { id, backend } = kernel;
    const tensors = (names: readonly string[]) => ofBlocks(inputs, blocks, names) as TensorInfo[];
    const layers = onCpu(kernel)
      ? layersOfCpu(inputs, blocks, kernel)
      : layersOfCuda(inputs, blocks, packed, kernel);
    const place = ['x', 'cos', 'sin', 'position'].map((name) => id(inputs[name]));
    const norms = [...tensors(NORMS), inputs.norm].map(id);
    const caches = tensors(CACHES).map(id);
    const y = backend.call('alitok::generator_step', ...place, caches, norms, ...layers, epsilon);
    const half = !onCpu(kernel) && (packed || inHalf(kernel));
    return half ? backend.wrapHalf(y) : backend.wrap(y, 'float32');
  });
  register<DrawOptions>('alitok.DrawStep', (inputs, { temperature, top_k, top_p }, kernel) => {
    const { id, either, out, backend } = kernel;
    const { logits, uniforms, scales, position, ids, codes } = inputs;
    const state = [id(uniforms), scales ? id(scales) : null, ...[position, ids, codes].map(id)];
    const given = onCpu(kernel) ? id(logits) : either(logits);
    backend.call('alitok::draw_step', given, ...state, temperature, top_k, top_p);
    return out('float32', 'slice.Tensor', id(uniforms), 0, 0, 0);
  });
}
