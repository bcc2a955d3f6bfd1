import * as tf from '@tensorflow/tfjs';
import { EngineError } from '../../errors.js';
import type { Recording } from '../ops/index.js';
import { type Argument, FEW_ROWS, LANES, type Native, type TensorId } from './bridge.js';
import { failure } from './failure.js';

/** PyTorch's numbers for element types, as its operators take them. */
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

/** The arrays that values of tfjs's types come in. */
const ARRAY_OF: Record<
  string,
  Float32ArrayConstructor | Int32ArrayConstructor | Uint8ArrayConstructor | undefined
> = {
  float32: Float32Array,
  int32: Int32Array,
  bool: Uint8Array,
};

/** The widest head that our own kernels on CUDA devices have room for (native/cuda/arguments.cuh). */
const MOST_HEAD_WIDTH = 128;

const READING = 'reading a tensor';

export type Precision = 'float32' | 'bf16';

/** In place of a PyTorch tensor that is not there. */
const NONE: TensorId = -1;

/**
 * The PyTorch tensors with a tfjs tensor's numbers. One of them is there, or both with the same numbers; none for what stays
 * in JavaScript, and after the data is disposed of. They are apart from the data so that they can be freed when those are lost.
 */
interface Representations {
  /** In the type that tfjs knows. */
  full: TensorId;
  /** In bfloat16. */
  half: TensorId;
}

/** What tfjs knows a tensor's data by. */
export class TensorData {
  references = 1;
  /** Whether the memory may still belong to a JavaScript array, so that nobody may write to it. */
  borrowed = false;
  constructor(
    readonly tensors: Representations,
    readonly dtype: tf.DataType,
    /** Whether the numbers were made in bfloat16, and in float32 only where somebody needed them so. */
    public madeHalf = false,
    /** Strings and complex numbers, which stay in JavaScript. */
    readonly host?: tf.backend_util.BackendValues,
  ) {}
}

/** What to read values of: they come in float32 of either. */
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
  /** Tells the user of work that goes on more slowly than it could. */
  warn: (message: string) => void = () => {};
  /**
   * Whether the device is a CUDA device with our own kernels (native/cuda), which read and give bfloat16: what layers give then
   * stays in it until somebody needs it in float32.
   */
  ownKernels = false;
  /** Frees what JavaScript lost without disposing of it. */
  private readonly lost = new FinalizationRegistry<Representations>((tensors) => this.release(tensors));

  constructor(
    readonly native: Native,
    /** Where new tensors are, such as `cpu` or `cuda:0`. */
    public device = 'cpu',
    /** What linear layers, attention and convolutions multiply; weights, sums and everything else are float32. */
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
    this.lost.unregister(written); // its tensors are those of `data` from here on
    Object.assign(data, written, { references });
    this.lost.register(data, data.tensors, data);
  }

  private upload(values: tf.TypedArray, shape: number[], dtype: tf.DataType): TensorId {
    const type = ARRAY_OF[dtype];
    if (!type) throw new EngineError(`the libtorch engine has no tensors of type ${dtype}`);
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

  /** Runs an ATen operator, such as `add.Tensor`. Throws EngineError with PyTorch's own words. */
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

  /** What an operator takes and gives, as PyTorch writes it; undefined where this PyTorch has no such operator. */
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

  /** Whether CUDA may multiply float32 numbers with 10 bits of mantissa. */
  get tf32(): boolean {
    return this.roundsToTF32;
  }

  set tf32(allowed: boolean) {
    this.roundsToTF32 = allowed;
    this.native.allowTF32(allowed);
  }

  /** Whether the device has instructions for products of bfloat16 numbers. */
  get multipliesHalf(): boolean {
    if (this.device !== 'cpu') return true;
    this.processorMultipliesHalf ??= this.call('alitok::has_bf16') as boolean;
    return this.processorMultipliesHalf;
  }

  /**
   * Whether products of bfloat16 numbers can give float32 at once, `mm.dtype`: on CUDA since PyTorch 2.8, as far as its library
   * has them for the device, which one product tells.
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

  /** Whether `alitok.GeneratorStep` does a step of so many sequences, with layers and heads of such widths. */
  takesStep(sequences: number, widths: readonly number[], headWidth: number): boolean {
    if (this.device !== 'cpu') return this.ownKernels && headWidth % 2 === 0 && headWidth <= MOST_HEAD_WIDTH;
    const few = this.precision === 'float32' && sequences <= FEW_ROWS;
    return few && widths.every((width) => width % LANES === 0);
  }

  /**
   * Does `step` once, and records what it asks of a CUDA device as a graph. Undefined, with nothing done, on the CPU and in builds
   * without graphs. Where recording fails the user is told once, and to replay is to do the step again.
   */
  record(step: () => void): Recording | undefined {
    if (this.device === 'cpu' || this.refusesGraphs || !this.has('alitok::graph_open')) return undefined;
    const graph = this.call('alitok::graph_open', this.device) as number;
    try {
      step(); // what is made once and stays, such as weights in another precision, is not to be recorded
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
        `a step cannot be recorded on ${this.device}, so each takes longer: ${(error as Error).message}`,
      );
      return { replay: step, close() {} };
    }
    return {
      replay: () => this.call('alitok::graph_replay', graph),
      close: () => this.call('alitok::graph_close', graph),
    };
  }

  /** The PyTorch tensor behind a tfjs tensor, in float32 also where the numbers were made in bfloat16. */
  id(tensor: tf.TensorInfo): TensorId {
    const { tensors } = tensor.dataId as TensorData;
    if (tensors.full === NONE && tensors.half !== NONE)
      tensors.full = this.call('to.dtype', tensors.half, ScalarType.float32) as TensorId;
    return tensors.full;
  }

  /** Data of their own for PyTorch tensors that calls gave. */
  private store(tensors: Representations, dtype: tf.DataType, madeHalf = false): TensorData {
    const data = new TensorData(tensors, dtype, madeHalf);
    this.lost.register(data, tensors, data);
    this.count += 1;
    return data;
  }

  /** A tfjs tensor around a PyTorch tensor, which it takes over. */
  wrap(id: TensorId, dtype: tf.DataType, shape: number[] = this.native.shape(id)): tf.TensorInfo {
    return { dataId: this.store({ full: id, half: NONE }, dtype), shape, dtype };
  }

  /** A tfjs tensor, float32 to tfjs, around a PyTorch tensor in bfloat16, which it takes over. */
  wrapHalf(id: TensorId, shape: number[] = this.native.shape(id)): tf.TensorInfo {
    return { dataId: this.store({ full: NONE, half: id }, 'float32', true), shape, dtype: 'float32' };
  }

  /** A tfjs tensor around a PyTorch tensor of the type of `either(tensor)`, such as a view of that. */
  wrapLike(tensor: tf.TensorInfo, id: TensorId, shape: number[] = this.native.shape(id)): tf.TensorInfo {
    return this.isHalf(tensor) ? this.wrapHalf(id, shape) : this.wrap(id, tensor.dtype, shape);
  }

  /** Whether a tensor's numbers were made in bfloat16. It does not depend on whether somebody has read them in float32. */
  isHalf(tensor: tf.TensorInfo): boolean {
    return (tensor.dataId as TensorData).madeHalf;
  }

  /** The PyTorch tensor in the type that the numbers were made in: bfloat16 where `isHalf`, else as `id`. */
  either(tensor: tf.TensorInfo): TensorId {
    return this.isHalf(tensor) ? this.halfOf(tensor) : this.id(tensor);
  }

  /** The same data under another shape. */
  alias(tensor: tf.TensorInfo): tf.TensorInfo {
    this.incRef(tensor.dataId as TensorData);
    return { dataId: tensor.dataId, shape: tensor.shape, dtype: tensor.dtype };
  }

  /** Whether a kernel may give `tensor` out again with other values: nobody else has its data. */
  mayReuse(tensor: tf.TensorInfo): boolean {
    const { references, borrowed } = tensor.dataId as TensorData;
    return references === 1 && !borrowed;
  }

  /**
   * A float32 tensor's numbers in bfloat16. They are kept beside the tensor, and freed with it: who writes to a tensor in
   * place says so by `overwritten`.
   */
  halfOf(tensor: tf.TensorInfo): TensorId {
    const { tensors } = tensor.dataId as TensorData;
    if (tensors.half === NONE)
      tensors.half = this.call('to.dtype', tensors.full, ScalarType.bfloat16) as TensorId;
    return tensors.half;
  }

  /** Whether a float32 tensor's numbers are there in bfloat16 as well. */
  hasRounded(tensor: tf.TensorInfo): boolean {
    const { tensors, madeHalf } = tensor.dataId as TensorData;
    return tensors.half !== NONE && !madeHalf;
  }

  /** Takes over the numbers of float32 tensors in bfloat16, which somebody has rounded; `overwritten` has been told. */
  takeRounded(all: readonly tf.TensorInfo[], halves: readonly TensorId[]): void {
    for (const [i, { dataId }] of all.entries()) (dataId as TensorData).tensors.half = halves[i];
  }

  /** To be told where a kernel has changed, or is about to change, what a tensor holds: then only what `id` gives is left. */
  overwritten(tensor: tf.TensorInfo): void {
    const data = tensor.dataId as TensorData;
    this.id(tensor);
    if (data.tensors.half !== NONE) this.native.free(data.tensors.half);
    data.tensors.half = NONE;
    data.madeHalf = false;
  }

  /** The element type that PyTorch keeps tfjs's type in. */
  scalarType(dtype: tf.DataType): number {
    return SCALAR_TYPE_OF[dtype];
  }
}
