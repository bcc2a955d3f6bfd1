import type * as tf from '@tensorflow/tfjs';
import { type Attribute, type Binding, failure, type Handle, type NodeBackend } from './binding.js';

/** TensorFlow's numbers of element types. */
export const Type = {
  float32: 1,
  float64: 2,
  int32: 3,
  int8: 6,
  complex64: 8,
  bool: 10,
  bfloat16: 14,
  uint32: 22,
} as const;

/** TensorFlow's numbers of the types of attributes. */
const AttributeType = { string: 0, int: 1, bool: 3, type: 4, shape: 5 } as const;

const attribute =
  (type: number) =>
  (name: string, value: unknown): Attribute => ({ name, type, value });

// The attributes of an operation. Those that follow from the types of its inputs, and those with a default value, may be left out.
export const text = attribute(AttributeType.string);
export const int = attribute(AttributeType.int);
export const flag = attribute(AttributeType.bool);
export const type = attribute(AttributeType.type);
export const shape = attribute(AttributeType.shape);

/** The attributes of an operation on a list of `count` tensors: TensorFlow does not find out their type. */
export const listOf = (count: number, dtype: number): Attribute[] => [int('N', count), type('T', dtype)];

/**
 * Runs TensorFlow's operations for kernels. They take and return handles of TensorFlow, without tfjs's bookkeeping, because
 * a small operation takes only a few microseconds.
 */
export class TensorFlow {
  /** Small tensors that operations take as arguments, such as axes and permutations. They are kept. */
  private readonly constants = new Map<string, Handle>();

  /** Results of `derived`, by the data of the weight. */
  private readonly fromWeights = new WeakMap<object, Handle>();
  /** Frees them once the weight has been garbage collected. */
  private readonly lost = new FinalizationRegistry<Handle>((handle) => this.free(handle));

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
    return { id, shape: tensor.shape, dtype: this.backend.tensorMap.get(tensor.dataId).dtype };
  }

  /**
   * Wraps a result as a tfjs tensor, which owns it from now on. tfjs sees bfloat16 and int8 as float32, but they cannot be read:
   * they are packed weights.
   */
  wrap(handle: Handle): tf.TensorInfo {
    const { id, shape, dtype } = handle;
    if (dtype !== Type.bfloat16 && dtype !== Type.int8) return this.backend.createOutputTensor(handle);
    const dataId = {};
    this.backend.tensorMap.set(dataId, { id, shape, dtype, values: null, refCount: 1 });
    return { dataId, shape, dtype: 'float32' };
  }

  /** What `make` makes of a weight, such as a transposed one, computed once as long as the weight does not change. */
  derived(weight: tf.TensorInfo, make: () => Handle): Handle {
    const { dataId } = weight;
    let result = this.fromWeights.get(dataId);
    if (!result) {
      result = make();
      this.fromWeights.set(dataId, result);
      this.lost.register(dataId, result, dataId);
    }
    return result;
  }

  /** The number in a tensor (1) int32, which never leaves the host. */
  integer(tensor: tf.TensorInfo): number {
    return (this.binding.tensorDataSync(this.handle(tensor).id) as Int32Array)[0];
  }

  /** Gives a tfjs tensor other numbers, of the same shape and type. */
  replace(tensor: tf.TensorInfo, next: Handle): void {
    this.free(this.handle(tensor));
    this.setHandle(tensor, next);
  }

  private setHandle({ dataId }: tf.TensorInfo, { id }: Handle): void {
    this.backend.tensorMap.get(dataId).id = id;
    const derived = this.fromWeights.get(dataId);
    if (!derived) return;
    this.free(derived);
    this.fromWeights.delete(dataId);
    this.lost.unregister(dataId);
  }

  /**
   * Frees a tfjs tensor's handle if nothing else uses its data, and returns whether it did. The tensor must not be read until
   * `give` returns it another.
   */
  readonly release = (tensor: tf.TensorInfo): boolean => {
    const own = this.backend.refCount(tensor.dataId) === 1;
    if (own) this.free(this.handle(tensor));
    return own;
  };

  /** Gives a tfjs tensor whose handle was released a new one, and returns another tensor with the same data. */
  give(tensor: tf.TensorInfo, handle: Handle): tf.TensorInfo {
    this.setHandle(tensor, handle);
    this.backend.incRef(tensor.dataId);
    return { dataId: tensor.dataId, shape: tensor.shape, dtype: tensor.dtype };
  }

  /** A list of integers, or one integer. Kept, so it must be one of few. */
  ints(values: number | readonly number[]): Handle {
    const key = typeof values === 'number' ? values : `[${values.join()}]`;
    return this.constant(`int32 ${key}`, () => this.uploadInts(values));
  }

  /** A float32 number. Kept, so it must be one of few. */
  number(value: number): Handle {
    return this.constant(`float32 ${Object.is(value, -0) ? '-0' : value}`, () => this.upload(value));
  }

  /** A tensor that `make` makes when `key` is asked for the first time, and that is kept. */
  constant(key: string, make: () => Handle): Handle {
    let handle = this.constants.get(key);
    if (!handle) {
      handle = make();
      this.constants.set(key, handle);
    }
    return handle;
  }

  /** A float32 number, sent to the device. The caller frees it. */
  upload(value: number): Handle {
    return this.create([], Type.float32, Float32Array.of(value));
  }

  /** A list of integers, or one integer. The caller frees it. */
  uploadInts(values: number | readonly number[]): Handle {
    return typeof values === 'number'
      ? this.create([], Type.int32, Int32Array.of(values))
      : this.create([values.length], Type.int32, Int32Array.from(values));
  }

  private create(shape: number[], dtype: number, values: Float32Array | Int32Array): Handle {
    return { id: this.binding.createTensor(shape, dtype, values), shape, dtype };
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
