import type { TensorInfo } from '@tensorflow/tfjs';
import { type BlockInput, generatorStepOp, STEP_LAYERS, STEP_NORMS } from '../../ops/generator-step.js';
import { inHalf, onCpu } from './products.js';
import { implement, type Kernel, OWN } from './register.js';

type Inputs = Record<string, TensorInfo | undefined>;

/** These inputs of each block, one block after the other. */
const ofBlocks = (inputs: Inputs, blocks: number, names: readonly BlockInput[]): (TensorInfo | undefined)[] =>
  Array.from({ length: blocks }, (_, i) => names.map((name) => inputs[`${i}.${name}`])).flat();

/** Weights, scales and biases for the CPU's operator. */
function layersOfCpu(inputs: Inputs, blocks: number, { id }: Kernel) {
  const part = (name: 'weight' | 'scale' | 'bias') => {
    const names = STEP_LAYERS.map((layer) => `${layer}.${name}` as const);
    return ofBlocks(inputs, blocks, names).map((tensor) => (tensor ? id(tensor) : null));
  };
  return [part('weight'), part('scale'), part('bias')];
}

/** The same for a CUDA device: if it multiplies in bfloat16, all are in bfloat16; w1 and w3 are one joined layer. */
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

/** A whole decoding step in one call, where `LibtorchBackend.takesStep` allows it. */
export function registerGeneratorStep(): void {
  implement(generatorStepOp, OWN, (inputs, { blocks, packed, epsilon }, kernel) => {
    const { id, backend } = kernel;
    const tensors = (names: readonly BlockInput[]) => ofBlocks(inputs, blocks, names) as TensorInfo[];
    const layers = onCpu(kernel)
      ? layersOfCpu(inputs, blocks, kernel)
      : layersOfCuda(inputs, blocks, packed, kernel);
    const place = [inputs.x, inputs.cos, inputs.sin, inputs.position].map(id);
    const norms = [...tensors(STEP_NORMS), inputs.norm].map(id);
    const caches = tensors(['k', 'v']).map(id);
    const y = backend.call('alitok::generator_step', ...place, caches, norms, ...layers, epsilon);
    const half = !onCpu(kernel) && (packed || inHalf(kernel));
    return half ? backend.wrapHalf(y) : backend.wrap(y, 'float32');
  });
}
