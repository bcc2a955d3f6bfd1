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

/** Reductions keep the dimensions that they sum up, with length 1. */
export const KEEP_DIMS = [flag('keep_dims', true)];

/** The attributes of an operation on a list of `count` tensors: TensorFlow does not find out their type. */
export const listOf = (count: number, dtype: number): Attribute[] => [int('N', count), type('T', dtype)];

/**
 * Runs TensorFlow's operations for kernels. They take and return handles of TensorFlow, without tfjs's bookkeeping, because
 * a small operation takes only a few microseconds.
 */
export class TensorFlow {
  /** Small tensors that operations take as arguments, such as axes and permutations. They are kept. */
  private readonly constants = new Map<string, Handle>();

  /** Results of `derived`, and the weights' handles, by the data of the first weight. */
  private readonly fromWeights = new WeakMap<object, { from: number[]; result: Handle }>();
  /** Frees them once that weight has been garbage collected. */
  private readonly lost = new FinalizationRegistry<Handle>((handle) => this.free(handle));

  /** The data of caches. */
  private readonly caches = new WeakSet<object>();

  constructor(private readonly backend: NodeBackend) {}

  private get binding(): Binding {
    return this.backend.binding;
  }

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
    const { shape, dtype } = handle;
    if (dtype !== Type.bfloat16 && dtype !== Type.int8) return this.backend.createOutputTensor(handle);
    return this.wrapAs(handle, shape);
  }

  /** Wraps a result that tfjs is to see as float32 numbers of another shape. */
  private wrapAs({ id, shape: own, dtype }: Handle, shape: number[]): tf.TensorInfo {
    const dataId = {};
    this.backend.tensorMap.set(dataId, { id, shape: own, dtype, values: null, refCount: 1 });
    return { dataId, shape, dtype: 'float32' };
  }

  /**
   * Wraps an empty cache of keys or values (B, H, Tmax, D), which tfjs sees as (B, Tmax, H, D): attention multiplies the rows
   * of each head, which lie together so.
   */
  wrapCache(handle: Handle): tf.TensorInfo {
    const [batch, heads, tokens, width] = handle.shape;
    const cache = this.wrapAs(handle, [batch, tokens, heads, width]);
    this.caches.add(cache.dataId);
    return cache;
  }

  /** The handle (B, H, Tmax, D) of a tensor that `wrapCache` has made; undefined for others. */
  cache(tensor: tf.TensorInfo): Handle | undefined {
    if (!this.caches.has(tensor.dataId)) return undefined;
    return { ...this.handle(tensor), shape: this.backend.tensorMap.get(tensor.dataId).shape };
  }

  /** What `make` makes of weights, such as a transposed one: made again only when one of them has changed. */
  derived(weights: readonly tf.TensorInfo[], make: () => Handle): Handle {
    const [{ dataId }] = weights;
    const from = weights.map((weight) => this.handle(weight).id); // a changed weight has another handle
    const before = this.fromWeights.get(dataId);
    if (before?.from.every((id, i) => id === from[i])) return before.result;
    if (before) {
      this.free(before.result);
      this.lost.unregister(dataId);
    }
    const result = make();
    this.fromWeights.set(dataId, { from, result });
    this.lost.register(dataId, result, dataId);
    return result;
  }

  /** The number in a tensor (1) int32, which never leaves the host. */
  integer(tensor: tf.TensorInfo): number {
    return (this.binding.tensorDataSync(this.handle(tensor).id) as Int32Array)[0];
  }

  /** Gives a tfjs tensor other numbers, of the same shape and type. */
  replace(tensor: tf.TensorInfo, { id }: Handle): void {
    this.free(this.handle(tensor));
    this.backend.tensorMap.get(tensor.dataId).id = id;
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
  give(tensor: tf.TensorInfo, { id }: Handle): tf.TensorInfo {
    this.backend.tensorMap.get(tensor.dataId).id = id;
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
    facade = new TensorFlow(backend);
    facades.set(backend, facade);
  }
  return facade;
}
