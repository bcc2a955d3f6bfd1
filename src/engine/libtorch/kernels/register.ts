import * as tf from '@tensorflow/tfjs';
import { type Inputs, isHostType, LeftToHost, type Result, runOnHost } from '../../host/kernels.js';
import type { InputsOf, Operation, ResultOf } from '../../ops/define.js';
import type { LibtorchBackend } from '../backend.js';
import type { Argument, TensorId } from '../bridge.js';

/** What a kernel calls: operators by name, on the PyTorch tensors behind tfjs's. */
export class Kernel {
  private temporary: TensorId[] = [];

  constructor(readonly backend: LibtorchBackend) {}

  /** The PyTorch tensor of a tfjs tensor. */
  readonly id = (tensor: tf.TensorInfo): TensorId => this.backend.id(tensor);

  /** The same, but in bfloat16 if the tensor was computed in it. */
  readonly either = (tensor: tf.TensorInfo): TensorId => this.backend.either(tensor);

  /** Runs an operator whose single result is freed when the kernel ends. */
  readonly use = (name: string, ...args: Argument[]): TensorId => {
    const result = this.backend.call(name, ...args) as TensorId;
    this.temporary.push(result);
    return result;
  };

  /** Marks a result of `call` to be freed when the kernel ends. */
  readonly drop = (id: TensorId): TensorId => {
    this.temporary.push(id);
    return id;
  };

  /** Runs an operator and wraps its single result as a tfjs tensor. */
  readonly out = (dtype: tf.DataType, name: string, ...args: Argument[]): tf.TensorInfo =>
    this.backend.wrap(this.backend.call(name, ...args), dtype);

  /** Runs an operator and wraps its single bfloat16 result, which is converted only when float32 is needed. */
  readonly outHalf = (name: string, ...args: Argument[]): tf.TensorInfo =>
    this.backend.wrapHalf(this.backend.call(name, ...args));

  /** Runs an operator that was given `either(x)` and returns the same type. */
  readonly outLike = (x: tf.TensorInfo, name: string, ...args: Argument[]): tf.TensorInfo =>
    this.backend.wrapLike(x, this.backend.call(name, ...args));

  /** Runs an operator and wraps each of its results as a float32 tensor. */
  readonly outs = (name: string, ...args: Argument[]): tf.TensorInfo[] =>
    (this.backend.call(name, ...args) as TensorId[]).map((id) => this.backend.wrap(id, 'float32'));

  end(): void {
    for (const id of this.temporary) this.backend.native.free(id);
    this.temporary = [];
  }
}

/** Registers the kernel of an operation of tfjs for the libtorch engine. */
export function register<A = object>(
  name: string,
  run: (inputs: Inputs, attributes: A, kernel: Kernel) => Result,
): void {
  tf.registerKernel({
    kernelName: name,
    backendName: 'libtorch',
    kernelFunc: ({ inputs, attrs, backend }) => {
      const kernel = new Kernel(backend as LibtorchBackend);
      try {
        return run(inputs as Inputs, attrs as unknown as A, kernel);
      } catch (error) {
        const types = [...Object.values(inputs).map((x) => (x as tf.TensorInfo)?.dtype), attrs?.dtype];
        if (!(error instanceof LeftToHost || types.some(isHostType))) throw error;
        return runOnHost(name, backend as LibtorchBackend, inputs as Inputs, attrs as tf.NamedAttrMap);
      } finally {
        kernel.end();
      }
    },
  });
}

/**
 * What computes an operation: alitok's own operators (native/) for at least some of its cases, PyTorch's operators, or the
 * composition of tfjs operations; `none` where the engine does without it.
 */
export type Means = 'own' | 'pytorch' | 'composition' | 'none';
/** On the CPU, and on a CUDA device with our own kernels. */
export type Support = Record<'cpu' | 'cuda', Means>;

export const OWN: Support = { cpu: 'own', cuda: 'own' };
export const PYTORCH: Support = { cpu: 'pytorch', cuda: 'pytorch' };

const supported = new Map<string, Support>();

/** What computes an operation of the vocabulary, by its kernel's name; undefined where the composition does. */
export const supportOf = (kernelName: string): Support | undefined => supported.get(kernelName);

/** Registers the kernel of an operation of the vocabulary for the libtorch engine, and notes what computes it. */
export function implement<N extends string, A extends object, R extends tf.Tensor | tf.Tensor[]>(
  { kernelName }: Pick<Operation<N, A, R>, 'kernelName' | 'inputs' | 'compose'>,
  support: Support,
  run: (inputs: InputsOf<N, tf.TensorInfo>, attributes: A, kernel: Kernel) => ResultOf<R>,
): void {
  supported.set(kernelName, support);
  register<A>(kernelName, run as unknown as (inputs: Inputs, attributes: A, kernel: Kernel) => Result);
}
