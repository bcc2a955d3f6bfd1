import * as tf from '@tensorflow/tfjs';
import { type Inputs, LeftToHost, type Result, runOnHost } from '../../host/kernels.js';
import type { InputsOf, Operation, ResultOf } from '../../ops/define.js';
import { operationsOf, type TensorFlow, type } from '../backend.js';
import type { Attribute, Handle, NodeBackend } from '../binding.js';

const NO_ATTRIBUTES: readonly Attribute[] = [];

/** What a kernel calls: TensorFlow's operations by name, whose results are freed when the kernel ends. */
export class Kernel {
  private readonly temporary = new Set<Handle>();
  readonly tensorflow: TensorFlow;

  constructor(readonly backend: NodeBackend) {
    this.tensorflow = operationsOf(backend);
  }

  /** TensorFlow's handle of a tfjs tensor. */
  readonly handle = (tensor: tf.TensorInfo): Handle => this.tensorflow.handle(tensor);

  /** A list of integers or one integer, such as axes. */
  readonly ints = (values: number | readonly number[]): Handle => this.tensorflow.ints(values);

  /** A float32 number. */
  readonly number = (value: number): Handle => this.tensorflow.number(value);

  /** A float32 number that is not kept, because it will not be needed again. */
  readonly changing = (value: number): Handle => this.temporarily(this.tensorflow.upload(value));

  /** Integers that are not kept. */
  readonly changingInts = (values: number | readonly number[]): Handle =>
    this.temporarily(this.tensorflow.uploadInts(values));

  private temporarily(handle: Handle): Handle {
    this.temporary.add(handle);
    return handle;
  }

  /** Runs an operation with one result. */
  readonly use = (name: string, inputs: readonly Handle[], attributes = NO_ATTRIBUTES): Handle =>
    this.uses(name, inputs, attributes, 1)[0];

  /** Runs an operation with several results. */
  readonly uses = (
    name: string,
    inputs: readonly Handle[],
    attributes: readonly Attribute[],
    outputs: number,
  ): Handle[] => {
    const results = this.tensorflow.run(name, inputs, attributes, outputs);
    for (const result of results) this.temporary.add(result);
    return results;
  };

  /** Like `use`, and frees its inputs at once if they are results of `use`: for large tensors that nothing else reads. */
  readonly last = (name: string, inputs: readonly Handle[], attributes = NO_ATTRIBUTES): Handle => {
    const result = this.use(name, inputs, attributes);
    for (const input of inputs) this.free(input);
    return result;
  };

  /** Frees a result of `use` before the kernel ends. */
  readonly free = (handle: Handle): void => {
    if (this.temporary.delete(handle)) this.tensorflow.free(handle);
  };

  /** A result of `use` that outlives the kernel. */
  readonly kept = (handle: Handle): Handle => {
    this.temporary.delete(handle);
    return handle;
  };

  /** A result of `use` as a tfjs tensor. */
  readonly out = (handle: Handle): tf.TensorInfo => this.tensorflow.wrap(this.kept(handle));

  /** The numbers in another element type. */
  readonly cast = (x: Handle, dtype: number): Handle =>
    x.dtype === dtype ? x : this.use('Cast', [x], [type('DstT', dtype)]);

  /** The same numbers in another shape, without a copy. */
  readonly reshape = (handle: Handle, shape: readonly number[]): Handle =>
    this.use('Reshape', [handle, this.ints(shape)]);

  end(): void {
    for (const handle of this.temporary) this.tensorflow.free(handle);
    this.temporary.clear();
  }
}

/** Registers our kernel of an operation of tfjs for the tensorflow engine, instead of tfjs-node's own if it has one. */
export function register<A = object>(
  name: string,
  run: (inputs: Inputs, attributes: A, kernel: Kernel) => Result,
): void {
  if (tf.getKernel(name, 'tensorflow')) tf.unregisterKernel(name, 'tensorflow');
  tf.registerKernel({
    kernelName: name,
    backendName: 'tensorflow',
    kernelFunc: ({ inputs, attrs, backend }) => {
      const kernel = new Kernel(backend as NodeBackend);
      try {
        return run(inputs as Inputs, attrs as unknown as A, kernel);
      } catch (error) {
        if (!(error instanceof LeftToHost)) throw error;
        return runOnHost(name, kernel.backend, inputs as Inputs, attrs as tf.NamedAttrMap);
      } finally {
        kernel.end();
      }
    },
  });
}

/** Leaves some cases of an operation that tfjs-node's kernel cannot compute to tfjs's own kernel. */
export function leaveToHost<A = object>(
  name: string,
  when: (inputs: Inputs, attributes: A) => boolean,
): void {
  const original = tf.getKernel(name, 'tensorflow');
  register<A>(name, (inputs, attributes, { backend }) => {
    if (when(inputs, attributes)) throw new LeftToHost();
    return original.kernelFunc({ inputs, attrs: attributes as tf.NamedAttrMap, backend }) as Result;
  });
}

/** Registers the kernel of an operation of the vocabulary for the tensorflow engine. */
export function implement<N extends string, A extends object, R extends tf.Tensor | tf.Tensor[]>(
  { kernelName }: Pick<Operation<N, A, R>, 'kernelName' | 'inputs' | 'compose'>,
  run: (inputs: InputsOf<N, tf.TensorInfo>, attributes: A, kernel: Kernel) => ResultOf<R>,
): void {
  register<A>(kernelName, run as unknown as (inputs: Inputs, attributes: A, kernel: Kernel) => Result);
}
