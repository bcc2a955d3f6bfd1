import * as tf from '@tensorflow/tfjs';
import { EngineError } from '../../errors.js';
import type { Recording } from '../ops/index.js';
import { type Argument, FEW_ROWS, failure, LANES, type Native, type TensorId } from './bridge.js';

/** PyTorch's numbers of element types, as its operators take them. */
export const ScalarType = {
  byte: 0,
  int32: 3,
  int64: 4,
  float32: 6,
  float64: 7,
  bool: 11,
  bfloat16: 15,
} as const;

const SCALAR_TYPE_OF: Record<string, number> = {
  float32: ScalarType.float32,
  int32: ScalarType.int32,
  bool: ScalarType.bool,
};

/** The array types of tfjs's element types. */
const ARRAY_OF: Record<
  string,
  Float32ArrayConstructor | Int32ArrayConstructor | Uint8ArrayConstructor | undefined
> = {
  float32: Float32Array,
  int32: Int32Array,
  bool: Uint8Array,
};

/** The widest head that our kernels on CUDA devices support (native/cuda/arguments.cuh). */
const MOST_HEAD_WIDTH = 128;

const READING = 'reading a tensor';

export type Precision = 'float32' | 'bf16';

/** Stands for a PyTorch tensor that does not exist. */
const NONE: TensorId = -1;

/**
 * The PyTorch tensors that hold a tfjs tensor's numbers: one of them, or both with the same numbers; none for values that stay
 * in JavaScript and after disposal. They are separate from the data so that they can be freed when those are garbage collected.
 */
interface Representations {
  /** In the type that tfjs sees. */
  full: TensorId;
  /** In bfloat16. */
  half: TensorId;
}

/** The data of a tfjs tensor. */
export class TensorData {
  references = 1;
  /** Whether the memory may still belong to a JavaScript array, so that kernels must not write to it. */
  borrowed = false;
  constructor(
    readonly tensors: Representations,
    readonly dtype: tf.DataType,
    /** Whether the numbers were computed in bfloat16; float32 is then a conversion, made when it is needed. */
    public madeHalf = false,
    /** Strings and complex numbers, which stay in JavaScript. */
    readonly host?: tf.backend_util.BackendValues,
  ) {}
}

/** The tensor to read values from; reading gives float32 from either. */
const readable = ({ tensors: { full, half } }: TensorData): TensorId => (full === NONE ? half : full);

/** tfjs's backend over PyTorch: data are PyTorch tensors, and kernels call ATen operators by name. */
export class LibtorchBackend extends tf.KernelBackend {
  private readonly operators = new Map<string, number>();
  private readonly schemas = new Map<string, string | null>();
  private count = 0;
  private processorMultipliesHalf?: boolean;
  private productsWiden?: boolean;
  private roundsToTF32 = false;
  private refusesGraphs = false;
  /** Receives warnings about work that is slower than it could be. */
  warn: (message: string) => void = () => {};
  /**
   * Whether the device is a CUDA device with our own kernels (native/cuda), which read and return bfloat16: results of layers
   * then stay in it until float32 is needed.
   */
  ownKernels = false;
  /** Frees the tensors of data that were garbage collected without being disposed of. */
  private readonly lost = new FinalizationRegistry<Representations>((tensors) => this.release(tensors));

  constructor(
    readonly native: Native,
    /** The device of new tensors, such as `cpu` or `cuda:0`. */
    public device = 'cpu',
    /** The precision in which linear layers, attention and convolutions multiply; everything else is float32. */
    public precision: Precision = 'float32',
  ) {
    super();
  }

  // tfjs's interface to data

  override write(values: tf.backend_util.BackendValues, shape: number[], dtype: tf.DataType): TensorData {
    if (dtype === 'string' || dtype === 'complex64') {
      this.count += 1;
      return new TensorData({ full: NONE, half: NONE }, dtype, false, values);
    }
    const full = this.upload(values as tf.TypedArray, shape, dtype);
    const data = this.store({ full, half: NONE }, dtype);
    data.borrowed = true;
    return data;
  }

  override move(
    data: TensorData,
    values: tf.backend_util.BackendValues,
    shape: number[],
    dtype: tf.DataType,
    references: number,
  ): void {
    const written = this.write(values, shape, dtype);
    this.lost.unregister(written); // its tensors belong to `data` from here on
    Object.assign(data, written, { references });
    this.lost.register(data, data.tensors, data);
  }

  private upload(values: tf.TypedArray, shape: number[], dtype: tf.DataType): TensorId {
    const type = ARRAY_OF[dtype];
    if (!type) throw new EngineError(`the libtorch engine does not support tensors of type ${dtype}`);
    let id: TensorId;
    try {
      const array = values instanceof type ? values : type.from(values);
      id = this.native.fromArray(array, shape, this.device);
    } catch (cause) {
      throw failure(cause, `a tensor [${shape}] on ${this.device}`);
    }
    if (dtype !== 'bool') return id;
    try {
      return this.call('to.dtype', id, ScalarType.bool) as TensorId;
    } finally {
      this.native.free(id);
    }
  }

  override readSync(data: TensorData): tf.backend_util.BackendValues {
    if (data.host) return data.host;
    try {
      return this.native.read(readable(data));
    } catch (cause) {
      throw failure(cause, READING);
    }
  }

  override async read(data: TensorData): Promise<tf.backend_util.BackendValues> {
    if (data.host) return data.host;
    try {
      return await this.native.readAsync(readable(data));
    } catch (cause) {
      throw failure(cause, READING);
    }
  }

  override refCount(data: TensorData): number {
    return data.references;
  }

  override incRef(data: TensorData): void {
    data.references += 1;
  }

  override disposeData(data: TensorData, force = false): boolean {
    data.references -= 1;
    if (data.references > 0 && !force) return false;
    this.count -= 1;
    this.lost.unregister(data);
    this.release(data.tensors);
    return true;
  }

  private release(tensors: Representations): void {
    for (const id of [tensors.full, tensors.half]) if (id !== NONE) this.native.free(id);
    Object.assign(tensors, { full: NONE, half: NONE });
  }

  override numDataIds(): number {
    return this.count;
  }

  override memory() {
    return { unreliable: true };
  }

  override async time(run: () => void): Promise<tf.BackendTimingInfo> {
    const start = performance.now();
    run();
    return { kernelMs: performance.now() - start };
  }

  override floatPrecision(): 16 | 32 {
    return 32;
  }

  override epsilon(): number {
    return 1e-7;
  }

  // For the kernels

  /** Runs an ATen operator, such as `add.Tensor`. Throws EngineError with PyTorch's message. */
  // biome-ignore lint/suspicious/noExplicitAny: an operator's result has the type that its schema says
  call(name: string, ...args: Argument[]): any {
    let operator = this.operators.get(name);
    if (operator === undefined) operator = this.find(name);
    try {
      return this.native.call(operator, ...args);
    } catch (cause) {
      throw failure(cause);
    }
  }

  private find(name: string): number {
    const [base, overload = ''] = name.split('.');
    const full = base.includes('::') ? base : `aten::${base}`;
    const found = this.native.find(full, overload);
    if (found === null)
      throw new EngineError(
        `PyTorch ${this.native.version} has no operator ${full}; install a newer libtorch`,
      );
    this.operators.set(name, found);
    return found;
  }

  /** Whether this PyTorch, or this build of the bridge (`alitok::NAME`), has an operator. */
  has(name: string): boolean {
    return this.schema(name) !== undefined;
  }

  /** An operator's schema as PyTorch writes it; undefined if this PyTorch does not have the operator. */
  schema(name: string): string | undefined {
    let schema = this.schemas.get(name);
    if (schema === undefined) {
      const [base, overload = ''] = name.split('.');
      const found = this.native.find(base.includes('::') ? base : `aten::${base}`, overload);
      schema = found === null ? null : this.native.schema(found);
      this.schemas.set(name, schema);
    }
    return schema ?? undefined;
  }

  /** Whether CUDA may multiply float32 numbers in TF32, with 10 bits of mantissa. */
  get tf32(): boolean {
    return this.roundsToTF32;
  }

  set tf32(allowed: boolean) {
    this.roundsToTF32 = allowed;
    this.native.allowTF32(allowed);
  }

  /** Whether the device has instructions for bfloat16 products. */
  get multipliesHalf(): boolean {
    if (this.device !== 'cpu') return true;
    this.processorMultipliesHalf ??= this.call('alitok::has_bf16') as boolean;
    return this.processorMultipliesHalf;
  }

  /**
   * Whether bfloat16 products can return float32 directly (`mm.dtype`): on CUDA since PyTorch 2.8, if its library supports the
   * device, which a small product finds out.
   */
  get widensProducts(): boolean {
    if (this.device === 'cpu' || !this.has('mm.dtype')) return false;
    this.productsWiden ??= this.tryWidening();
    return this.productsWiden;
  }

  private tryWidening(): boolean {
    const x = this.call('zeros', [16, 16], ScalarType.bfloat16, null, this.device) as TensorId;
    try {
      this.native.free(this.call('mm.dtype', x, x, ScalarType.float32) as TensorId);
      return true;
    } catch {
      return false;
    } finally {
      this.native.free(x);
    }
  }

  /** Whether the kernel of `generatorStep` can do a step of this many sequences, with layers and heads of these widths. */
  takesStep(sequences: number, widths: readonly number[], headWidth: number): boolean {
    if (this.device !== 'cpu') return this.ownKernels && headWidth % 2 === 0 && headWidth <= MOST_HEAD_WIDTH;
    const few = this.precision === 'float32' && sequences <= FEW_ROWS;
    return few && widths.every((width) => width % LANES === 0);
  }

  /**
   * Runs `step` once and records its work on a CUDA device as a graph. On the CPU, and in builds without graphs, it does nothing
   * and returns undefined. If recording fails, the user is warned once, and replaying runs the step again.
   */
  record(step: () => void): Recording | undefined {
    if (this.device === 'cpu' || this.refusesGraphs || !this.has('alitok::graph_open')) return undefined;
    const graph = this.call('alitok::graph_open', this.device) as number;
    try {
      step(); // creates what is kept, such as weights in another precision, and must not be recorded
    } catch (error) {
      this.call('alitok::graph_abort', graph);
      throw error;
    }
    try {
      this.call('alitok::graph_begin', graph);
      step();
      this.call('alitok::graph_end', graph);
    } catch (error) {
      this.call('alitok::graph_abort', graph);
      this.refusesGraphs = true;
      this.warn(
        `steps of sampling cannot be recorded on ${this.device}, so each takes longer: ${(error as Error).message}`,
      );
      return { replay: step, close() {} };
    }
    return {
      replay: () => this.call('alitok::graph_replay', graph),
      close: () => this.call('alitok::graph_close', graph),
    };
  }

  /** The PyTorch tensor behind a tfjs tensor, converted to float32 if the numbers were computed in bfloat16. */
  id(tensor: tf.TensorInfo): TensorId {
    const { tensors } = tensor.dataId as TensorData;
    if (tensors.full === NONE && tensors.half !== NONE)
      tensors.full = this.call('to.dtype', tensors.half, ScalarType.float32) as TensorId;
    return tensors.full;
  }

  /** New data that own these PyTorch tensors. */
  private store(tensors: Representations, dtype: tf.DataType, madeHalf = false): TensorData {
    const data = new TensorData(tensors, dtype, madeHalf);
    this.lost.register(data, tensors, data);
    this.count += 1;
    return data;
  }

  /** Wraps a PyTorch tensor as a tfjs tensor, which owns it from now on. */
  wrap(id: TensorId, dtype: tf.DataType, shape: number[] = this.native.shape(id)): tf.TensorInfo {
    return { dataId: this.store({ full: id, half: NONE }, dtype), shape, dtype };
  }

  /** Wraps a bfloat16 PyTorch tensor as a tfjs tensor, which owns it; tfjs sees float32. */
  wrapHalf(id: TensorId, shape: number[] = this.native.shape(id)): tf.TensorInfo {
    return { dataId: this.store({ full: NONE, half: id }, 'float32', true), shape, dtype: 'float32' };
  }

  /** Wraps a PyTorch tensor of the type of `either(tensor)`, such as a view of it. */
  wrapLike(tensor: tf.TensorInfo, id: TensorId, shape: number[] = this.native.shape(id)): tf.TensorInfo {
    return this.isHalf(tensor) ? this.wrapHalf(id, shape) : this.wrap(id, tensor.dtype, shape);
  }

  /** Whether a tensor's numbers were computed in bfloat16, even if they have also been converted to float32. */
  isHalf(tensor: tf.TensorInfo): boolean {
    return (tensor.dataId as TensorData).madeHalf;
  }

  /** The PyTorch tensor in the type in which the numbers were computed: bfloat16 if `isHalf`, else as `id`. */
  either(tensor: tf.TensorInfo): TensorId {
    return this.isHalf(tensor) ? this.halfOf(tensor) : this.id(tensor);
  }

  /** Another handle on the same data. */
  alias(tensor: tf.TensorInfo): tf.TensorInfo {
    this.incRef(tensor.dataId as TensorData);
    return { dataId: tensor.dataId, shape: tensor.shape, dtype: tensor.dtype };
  }

  /** Whether a kernel may overwrite `tensor` and return it as its result: nothing else uses its data. */
  mayReuse(tensor: tf.TensorInfo): boolean {
    const { references, borrowed } = tensor.dataId as TensorData;
    return references === 1 && !borrowed;
  }

  /**
   * A float32 tensor's numbers in bfloat16. The copy is kept and freed with the tensor, so a kernel that writes to a tensor in
   * place must call `overwritten`.
   */
  halfOf(tensor: tf.TensorInfo): TensorId {
    const { tensors } = tensor.dataId as TensorData;
    if (tensors.half === NONE)
      tensors.half = this.call('to.dtype', tensors.full, ScalarType.bfloat16) as TensorId;
    return tensors.half;
  }

  /** Whether a float32 tensor has a copy in bfloat16. */
  hasRounded(tensor: tf.TensorInfo): boolean {
    const { tensors, madeHalf } = tensor.dataId as TensorData;
    return tensors.half !== NONE && !madeHalf;
  }

  /** Takes over bfloat16 copies of float32 tensors, after `overwritten` was called for these. */
  takeRounded(all: readonly tf.TensorInfo[], halves: readonly TensorId[]): void {
    for (const [i, { dataId }] of all.entries()) (dataId as TensorData).tensors.half = halves[i];
  }

  /** Must be called when a kernel writes to a tensor in place, before or after: it drops everything but `id(tensor)`. */
  overwritten(tensor: tf.TensorInfo): void {
    const data = tensor.dataId as TensorData;
    this.id(tensor);
    if (data.tensors.half !== NONE) this.native.free(data.tensors.half);
    data.tensors.half = NONE;
    data.madeHalf = false;
  }

  /** PyTorch's element type for a type of tfjs. */
  scalarType(dtype: tf.DataType): number {
    return SCALAR_TYPE_OF[dtype];
  }
}
