import { register } from './register.js';

const NORMS = ['norm1', 'qNorm', 'kNorm', 'norm2'];
type Attributes = { position: number; epsilon: number };
const LAYERS = ['qkv', 'proj', 'w1', 'w3', 'w2'];

/** A decoding step of a block in one call; `LibtorchBackend.takesStep` says when. */
export function registerGeneratorStep(): void {
  register<Attributes>('alitok.GeneratorStep', (inputs, { position, epsilon }, { id, out }) => {
    const given = (name: string) => (inputs[name] ? id(inputs[name]) : null);
    return out(
      'float32',
      'alitok::generator_step',
      ...['x', 'cos', 'sin', 'k', 'v'].map((name) => id(inputs[name])),
      position,
      NORMS.map((name) => id(inputs[name])),
      ...['weight', 'scale', 'bias'].map((part) => LAYERS.map((name) => given(`${name}.${part}`))),
      epsilon,
    );
  });
}
