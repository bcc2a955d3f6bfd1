import * as tf from '@tensorflow/tfjs';
import type { Parameter, ParameterSource, Parameters } from '../nn/parameters.js';
import type { Random } from '../random.js';

// Starting a model from the weights of another one that differs in what fine-tuning may change.

/** How a tensor of the file becomes a parameter of another shape or meaning. */
export interface Change {
  /** In words, for the log. */
  how: string;
  /** The parameter's values, from those in the file and the initial ones that a new model would have. */
  values(stored: Float32Array, initial: Float32Array): Float32Array;
}

export interface AdoptOptions {
  /** Matches parameters that keep their initial values. */
  redrawn?: (parameter: Parameter) => boolean;
  /** Matches tensors of the file that are not part of this model. */
  ignored?: RegExp;
  /** The change that a parameter needs, given the shape that the file has it in; undefined to take it as it is. */
  change?: (parameter: Parameter, stored: readonly number[]) => Change | undefined;
}

/** What became of a model's parameters. */
export interface Adopted {
  /** Number of parameters that were taken as they are. */
  taken: number;
  /** How others were changed, by name. */
  changed: Record<string, string>;
  /** Names of those with initial values. */
  redrawn: string[];
}

/** What will become of each parameter. */
export interface Plan {
  parameter: Parameter;
  change?: Change;
  redrawn: boolean;
}

/**
 * Decides how parameters get their values from a file, strictly by name: apart from what `options` allow, names and shapes
 * must be the same. Reads no tensor.
 * @throws CheckpointError listing missing, unexpected and misshapen names
 */
export function planAdoption(
  parameters: Parameters,
  { path, tensors }: Pick<ParameterSource, 'path' | 'tensors'>,
  { redrawn = () => false, ignored, change = () => undefined }: AdoptOptions,
): Plan[] {
  const plan = [...parameters].map((parameter): Plan => {
    if (redrawn(parameter)) return { parameter, redrawn: true };
    const stored = tensors.get(parameter.name)?.shape;
    return { parameter, redrawn: false, change: stored && change(parameter, stored) };
  });
  const shapes = new Map(tensors);
  for (const { parameter, change: changed, redrawn: drawn } of plan)
    if (changed || drawn) shapes.set(parameter.name, { shape: parameter.shape });
  parameters.check({ path, tensors: shapes }, { ignore: ignored });
  return plan;
}

/** Gives parameters the values of a plan; initial ones are drawn as `Parameters.initialize` draws them. */
export async function adopt(plan: readonly Plan[], file: ParameterSource, random: Random): Promise<Adopted> {
  const adopted: Adopted = { taken: 0, changed: {}, redrawn: [] };
  for (const { parameter: p, change, redrawn } of plan) {
    if (redrawn || change) p.initialize(random);
    if (redrawn) adopted.redrawn.push(p.name);
    else {
      const stored = await file.readFloat32(p.name);
      const values = change ? change.values(stored, await p.read()) : stored;
      p.value = tf.tensor(values, p.shape as number[]);
      if (change) adopted.changed[p.name] = change.how;
      else adopted.taken += 1;
    }
  }
  return adopted;
}
