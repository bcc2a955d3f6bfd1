import * as tf from '@tensorflow/tfjs';

/** What an operation receives: tensors by name (an optional one may be absent). */
export type Inputs = Record<string, tf.Tensor>;
type Attributes = Record<string, number | boolean>;

/** One fused operation of the vocabulary. */
interface Definition<A extends Attributes> {
  /** Kernel name; an engine that registers a kernel of this name answers instead of `compose`. */
  name: string;
  /** The same result out of tfjs operations, for engines without a kernel of their own. */
  compose: (inputs: Inputs, attributes: A) => tf.Tensor | tf.Tensor[];
  /** Inputs the gradient needs. */
  save?: readonly string[];
  /** Whether it needs the result too, as `output`. */
  saveOutput?: boolean;
  /** Gradient by each differentiable input, from the output's gradient and what was saved. */
  gradient?: (dy: tf.Tensor, saved: Inputs, attributes: A) => Inputs;
}

/** Runs an operation on tensors by name; absent optional inputs are `undefined`. */
export type Op<A> = (inputs: Record<string, tf.Tensor | undefined>, attributes: A) => tf.Tensor | tf.Tensor[];

const definitions: Definition<never>[] = [];

/**
 * Adds an operation to the vocabulary: one tfjs kernel with a gradient. Returns the function that runs it.
 * Gradients are computed once for all inputs, because fused backward kernels give them together.
 */
export function defineOp<A extends Attributes>(definition: Definition<A>): Op<A> {
  const { name, save = [], saveOutput = false, gradient } = definition;
  definitions.push(definition as unknown as Definition<never>);
  if (gradient) {
    tf.registerGradient({
      kernelName: name,
      inputsToSave: [...save],
      outputsToSave: [saveOutput],
      gradFunc: (dy, saved, attributes) => {
        const names = saveOutput ? [...save, 'output'] : save;
        const values = Object.fromEntries(names.map((key, i) => [key, saved[i]]));
        const gradients = gradient(dy as tf.Tensor, values, attributes as unknown as A);
        return Object.fromEntries(Object.entries(gradients).map(([key, value]) => [key, () => value]));
      },
    });
  }
  return (inputs, attributes) => {
    const present = Object.entries(inputs).filter(([, tensor]) => tensor !== undefined);
    return tf.engine().runKernel(name, Object.fromEntries(present) as tf.NamedTensorMap, attributes) as
      | tf.Tensor
      | tf.Tensor[];
  };
}

/** Runs an operation as its composition, for engines whose kernel is for some devices only. */
export function compose(name: string, inputs: tf.NamedTensorInfoMap, attributes: object): tf.TensorInfo {
  const { compose: run } = definitions.find((definition) => definition.name === name)!;
  return tf.tidy(() => run(inputs as unknown as Inputs, attributes as never)) as tf.TensorInfo;
}

/** Registers the composition of every operation that the engine `backendName` has no kernel for. */
export function registerCompositions(backendName: string): void {
  for (const { name } of definitions) {
    if (tf.getKernel(name, backendName)) continue;
    tf.registerKernel({
      kernelName: name,
      backendName,
      kernelFunc: ({ inputs, attrs }) => compose(name, inputs, attrs ?? {}),
    });
  }
}

/** (…, d) → (rows, d) */
export function rows(x: tf.Tensor): tf.Tensor2D {
  const width = x.shape[x.rank - 1];
  return x.reshape([x.size / width, width]);
}
