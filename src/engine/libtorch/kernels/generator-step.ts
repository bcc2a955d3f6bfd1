import type { TensorInfo } from '@tensorflow/tfjs';
import type { DrawOptions } from '../../ops/index.js';
import { register } from './register.js';

const NORMS = ['norm1', 'qNorm', 'kNorm', 'norm2'];
const CACHES = ['k', 'v'];
const LAYERS = ['qkv', 'proj', 'w1', 'w3', 'w2'];
type Attributes = { blocks: number; packed: boolean; epsilon: number };

/** A decoding step in two calls, and what it needs; `LibtorchBackend.takesStep` says when. */
export function registerGeneratorStep(): void {
  register<Attributes>('alitok.GeneratorStep', (inputs, { blocks, epsilon }, { id, out }) => {
    const all = (names: readonly string[]) =>
      Array.from({ length: blocks }, (_, i) => names.map((name) => inputs[`${i}.${name}`])).flat();
    const given = (tensor: TensorInfo | undefined) => (tensor ? id(tensor) : null);
    const part = (name: string) => all(LAYERS.map((layer) => `${layer}.${name}`)).map(given);
    return out(
      'float32',
      'alitok::generator_step',
      ...['x', 'cos', 'sin', 'position'].map((name) => id(inputs[name])),
      all(CACHES).map(id),
      [...all(NORMS), inputs.norm].map(id),
      part('weight'),
      part('scale'),
      part('bias'),
      epsilon,
    );
  });
  register<DrawOptions>('alitok.DrawStep', (inputs, { temperature, top_k, top_p }, { id, backend, out }) => {
    const { logits, uniforms, scales, position, ids, codes } = inputs;
    const state = [id(uniforms), scales ? id(scales) : null, ...[position, ids, codes].map(id)];
    backend.call('alitok::draw_step', id(logits), ...state, temperature, top_k, top_p);
    return out('float32', 'slice.Tensor', id(uniforms), 0, 0, 0);
  });
}
