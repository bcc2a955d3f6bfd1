import type * as tf from '@tensorflow/tfjs';
import { type Attribute, type Binding, failure, type Handle, type NodeBackend } from './binding.js';

/** TensorFlow's numbers of element types. */
export const Type = {
  float32: 1,
  float64: 2,
  int32: 3,
  bool: 10,
  uint32: 22,
} as const;

/** TensorFlow's numbers of the types of attributes. */
const AttributeType = { string: 0, int: 1, float: 2, bool: 3, type: 4 } as const;

const attribute =
  (type: number) =>
  (name: string, value: unknown): Attribute => ({ name, type, value });

// The attributes of an operation. Those that follow from the types of its inputs, and those with a default value, may be left out.
export const text = attribute(AttributeType.string);
export const int = attribute(AttributeType.int);
export const float = attribute(AttributeType.float);
export const flag = attribute(AttributeType.bool);
export const type = attribute(AttributeType.type);

type Values = Float32Array | Int32Array;

/**
 * Runs TensorFlow's operations for kernels. They take and return handles of TensorFlow, without tfjs's bookkeeping, because
 * a small operation takes only a few microseconds.
 */
export class TensorFlow {
  /** Small tensors that operations take as arguments, such as axes and permutations. They are kept. */
  private readonly constants = new Map<string, Handle>();

  constructor(
    private readonly binding: Binding,
    private readonly backend: NodeBackend,
  ) {}

  /** Runs an operation with several results. Throws EngineError with TensorFlow's message. */
  run(name: string, inputs: readonly Handle[], attributes: readonly Attribute[], outputs: number): Handle[] {
    const ids = new Array<number>(inputs.length);
    for (let i = 0; i < ids.length; i++) ids[i] = inputs[i].id;
    try {
      return this.binding.executeOp(name, attributes, ids, outputs);
    } catch (cause) {
      throw failure(cause, name);
    }
  }

  free({ id }: Handle): void {
    this.binding.deleteTensor(id);
  }

  /** A handle on a tfjs tensor's data, which are sent to the device if they are still in JavaScript. */
  handle(tensor: tf.TensorInfo): Handle {
    const [id] = this.backend.getInputTensorIds([tensor]);
    return { id, shape: tensor.shape, dtype: Type[tensor.dtype as keyof typeof Type] };
  }

  /** Wraps a result as a tfjs tensor, which owns it from now on. */
  wrap(handle: Handle): tf.TensorInfo {
    return this.backend.createOutputTensor(handle);
  }

  /** A list of integers, or one integer. */
  ints(values: number | readonly number[]): Handle {
    return this.constant(Type.int32, values, (list) => Int32Array.from(list));
  }

  /** A float32 number. */
  number(value: number): Handle {
    return this.constant(Type.float32, value, (list) => Float32Array.from(list));
  }

  private constant(
    dtype: number,
    values: number | readonly number[],
    array: (list: readonly number[]) => Values,
  ): Handle {
    const key = `${dtype} ${typeof values === 'number' ? values : `[${values.join()}]`}`;
    let handle = this.constants.get(key);
    if (!handle) {
      const [list, shape] = typeof values === 'number' ? [[values], []] : [values, [values.length]];
      handle = { id: this.binding.createTensor(shape, dtype, array(list)), shape, dtype };
      this.constants.set(key, handle);
    }
    return handle;
  }
}

const facades = new WeakMap<object, TensorFlow>();

/** TensorFlow's operations behind a tfjs-node backend. */
export function operationsOf(backend: NodeBackend): TensorFlow {
  let facade = facades.get(backend);
  if (!facade) {
    facade = new TensorFlow(backend.binding, backend);
    facades.set(backend, facade);
  }
  return facade;
}
