import * as tf from '@tensorflow/tfjs';
import { EngineError } from '../../errors.js';
import { type Argument, FEW_ROWS, LANES, type Native, type TensorId } from './bridge.js';

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

export type Precision = 'float32' | 'bf16';

/** What tfjs knows a tensor's data by. */
export class TensorData {
  references = 1;
  /** Whether the memory may still belong to a JavaScript array, so that nobody may write to it. */
  borrowed = false;
  constructor(
    /** The tensor in PyTorch; −1 for what stays in JavaScript, and after the data is disposed of. */
    public id: TensorId,
    readonly dtype: tf.DataType,
    /** Strings and complex numbers, which stay in JavaScript. */
    readonly host?: tf.backend_util.BackendValues,
  ) {}
}

/** How much of an operator's error to keep: PyTorch's first line says what is wrong, the rest where in C++. */
const firstLine = (text: string) => text.split('\n')[0];

/** tfjs's backend over PyTorch: data are PyTorch tensors, and kernels call ATen operators by name. */
export class LibtorchBackend extends tf.KernelBackend {
  private readonly operators = new Map<string, number>();
  private count = 0;
  private processorMultipliesHalf?: boolean;
  /** Frees what JavaScript lost without disposing of it. */
  private readonly lost = new FinalizationRegistry<TensorId>((id) => this.native.free(id));

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
      return new TensorData(-1, dtype, values);
    }
    const data = this.store(this.upload(values as tf.TypedArray, shape, dtype), dtype);
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
    data.id = written.id;
    data.references = references;
  }

  private upload(values: tf.TypedArray, shape: number[], dtype: tf.DataType): TensorId {
    if (dtype === 'float32')
      return this.native.fromArray(
        values instanceof Float32Array ? values : Float32Array.from(values),
        shape,
        this.device,
      );
    if (dtype === 'int32')
      return this.native.fromArray(
        values instanceof Int32Array ? values : Int32Array.from(values),
        shape,
        this.device,
      );
    if (dtype !== 'bool') throw new EngineError(`the libtorch engine has no tensors of type ${dtype}`);
    const bytes = this.native.fromArray(
      values instanceof Uint8Array ? values : Uint8Array.from(values),
      shape,
      this.device,
    );
    const id = this.call('to.dtype', bytes, ScalarType.bool) as TensorId;
    this.native.free(bytes);
    return id;
  }

  override readSync(data: TensorData): tf.backend_util.BackendValues {
    if (data.host) return data.host;
    try {
      return this.native.read(data.id);
    } catch (cause) {
      throw this.explain(cause as Error);
    }
  }

  override async read(data: TensorData): Promise<tf.backend_util.BackendValues> {
    if (data.host) return data.host;
    try {
      return await this.native.readAsync(data.id);
    } catch (cause) {
      throw this.explain(cause as Error);
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
    if (data.id >= 0) {
      this.lost.unregister(data);
      this.native.free(data.id);
      data.id = -1;
    }
    return true;
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
      throw this.explain(cause as Error);
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

  /** Whether this PyTorch has an operator. */
  has(name: string): boolean {
    const [base, overload = ''] = name.split('.');
    return this.operators.has(name) || this.native.find(`aten::${base}`, overload) !== null;
  }

  private explain(cause: Error): EngineError {
    const memory = /out of memory|can't allocate memory|not enough memory/i.test(cause.message);
    const remedy = memory ? '; lower the batch size, or raise accumulation' : '';
    return new EngineError(`libtorch: ${firstLine(cause.message)}${remedy}`, { cause });
  }

  /** Whether the device has instructions for products of bfloat16 numbers. */
  get multipliesHalf(): boolean {
    if (this.device !== 'cpu') return true;
    this.processorMultipliesHalf ??= this.call('alitok::has_bf16') as boolean;
    return this.processorMultipliesHalf;
  }

  /** Whether `alitok.GeneratorStep` does a step of so many sequences, with layers of such widths. */
  takesStep(sequences: number, widths: number[]): boolean {
    const plain = this.device === 'cpu' && this.precision === 'float32';
    return plain && sequences <= FEW_ROWS && widths.every((width) => width % LANES === 0);
  }

  /** The PyTorch tensor behind a tfjs tensor. */
  id(tensor: tf.TensorInfo): TensorId {
    return (tensor.dataId as TensorData).id;
  }

  /** Data of their own for a PyTorch tensor that a call gave. */
  private store(id: TensorId, dtype: tf.DataType): TensorData {
    const data = new TensorData(id, dtype);
    this.lost.register(data, id, data);
    this.count += 1;
    return data;
  }

  /** A tfjs tensor around a PyTorch tensor, which it takes over. */
  wrap(id: TensorId, dtype: tf.DataType, shape: number[] = this.native.shape(id)): tf.TensorInfo {
    return { dataId: this.store(id, dtype), shape, dtype };
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

  /** The element type that PyTorch keeps tfjs's type in. */
  scalarType(dtype: tf.DataType): number {
    return SCALAR_TYPE_OF[dtype];
  }
}
