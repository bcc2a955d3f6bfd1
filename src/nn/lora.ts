import * as tf from '@tensorflow/tfjs';
import * as ops from '../engine/ops/index.js';
import { fanIn, zeros } from './initializers.js';
import type { Parameter, Parameters, Saved, Scope } from './parameters.js';

// Low-rank adaptation (LoRA; Hu et al., arXiv 2106.09685): the weight W of a linear layer stays, and W + (alpha/rank)·B·A takes
// its place, with A (rank, inputs) and B (outputs, rank).

export interface Lora {
  rank: number;
  /** The adapter's output is multiplied by alpha / rank. */
  alpha: number;
}

const [A, B] = ['lora_A.weight', 'lora_B.weight'];

/** Whether a parameter belongs to an adapter. */
export const isAdapter = ({ name }: Pick<Parameter, 'name'>): boolean =>
  name.endsWith(`.${A}`) || name.endsWith(`.${B}`);

/** a + b of one shape. tfjs's own addition keeps both for the gradient, which needs neither. */
function add(a: tf.Tensor, b: tf.Tensor): tf.Tensor {
  return tf.customGrad((x, y) => ({
    value: (x as tf.Tensor).add(y as tf.Tensor),
    gradFunc: (dy: tf.Tensor) => [dy, dy],
  }))(a, b);
}

/**
 * Adds an adapter to a linear layer: x (…, inputs) → (…, outputs). B begins as zeros, so that nothing changes at first.
 * Scaling the few numbers between A and B costs less than scaling the result.
 */
export function adapt(
  layer: (x: tf.Tensor) => tf.Tensor,
  scope: Scope,
  { inputs, outputs, rank, alpha }: Lora & { inputs: number; outputs: number },
): (x: tf.Tensor) => tf.Tensor {
  const down = scope.parameter(A, [rank, inputs], fanIn(inputs));
  const up = scope.parameter(B, [outputs, rank], zeros);
  return (x) =>
    tf.tidy(() => add(layer(x), ops.linear(ops.linear(x, down.value).mul(alpha / rank), up.value)));
}

/** The weight of a layer with its adapter, W + (alpha/rank)·B·A. */
function mergedWeight(weight: Parameter, adapters: Parameters, { rank, alpha }: Lora): tf.Tensor {
  const layer = weight.name.slice(0, -'weight'.length);
  const [down, up] = [A, B].map((name) => adapters.get(`${layer}${name}`)!.value as tf.Tensor2D);
  return tf.tidy(() => weight.value.add(tf.matMul(up, down).mul(alpha / rank)));
}

const hasAdapter = ({ name }: Parameter, adapters: Parameters) =>
  name.endsWith('.weight') && adapters.get(name.replace(/weight$/, A)) !== undefined;

/**
 * A model's parameters without adapters, as they are after merging; each is computed when it is read. Values that
 * `adapters` has, of adapters and of other parameters, replace the model's own.
 */
export function merged(parameters: Parameters, adapters: Parameters, lora: Lora): Saved[] {
  return [...parameters]
    .filter((p) => !isAdapter(p))
    .map((p) => {
      if (!hasAdapter(p, adapters)) return adapters.get(p.name) ?? p;
      const read = async () => {
        const weight = mergedWeight(p, adapters, lora);
        const values = (await weight.data()) as Float32Array;
        weight.dispose();
        return values;
      };
      return { name: p.name, shape: p.shape, read };
    });
}

/** Merges `adapters` into a model that has none; other parameters among them replace the model's own. */
export function mergeInPlace(parameters: Parameters, adapters: Parameters, lora: Lora): void {
  for (const p of parameters) {
    const replacing = adapters.get(p.name);
    if (hasAdapter(p, adapters)) p.value = mergedWeight(p, adapters, lora);
    else if (replacing) p.value = replacing.value.clone();
  }
}
