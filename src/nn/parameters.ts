import * as tf from '@tensorflow/tfjs';
import { type PackedWeight, packWeight, type WeightKind } from '../engine/ops/index.js';
import { CheckpointError } from '../errors.js';
import { writeSafetensors } from '../formats/safetensors.js';
import type { Random } from '../random.js';
import type { Initializer } from './initializers.js';

/** One tensor of a model, under its checkpoint name and in its PyTorch layout. */
export class Parameter {
  private tensor?: tf.Tensor;
  private tapped?: tf.Tensor;
  private onGradient?: (gradient: tf.Tensor) => void;
  /** The weight in fewer bits, which replaces `value` after `pack`. */
  packed?: PackedWeight;
  /** Not trained, so that layers need not compute its gradient. Buffers are never trained. */
  frozen = false;

  constructor(
    readonly name: string,
    readonly shape: readonly number[],
    readonly initializer: Initializer,
    /** Buffers are saved with the model but not trained. */
    readonly buffer: boolean,
  ) {}

  get size(): number {
    return this.shape.reduce((a, b) => a * b, 1);
  }

  /** The current value; throws before `initialize` or `load`. */
  get value(): tf.Tensor {
    if (!this.tensor) throw new Error(`parameter ${this.name} has no value yet`);
    if (!this.onGradient) return this.tensor;
    this.tapped ??= tf.keep(this.tapWith(this.onGradient, this.tensor));
    return this.tapped;
  }

  /** Takes the tensor over and disposes of the old one. */
  set value(next: tf.Tensor) {
    this.tensor?.dispose();
    this.tensor = tf.keep(next);
  }

  /**
   * Until `untap`, `value` is a copy, made where the forward pass first reads it. The backward pass reaches that copy once
   * the gradient is complete; `onGradient` is then called with it, long before those of earlier layers are computed.
   */
  tap(onGradient: (gradient: tf.Tensor) => void): void {
    this.onGradient = onGradient;
  }

  untap(): void {
    this.tapped?.dispose();
    this.tapped = undefined;
    this.onGradient = undefined;
  }

  private tapWith(onGradient: (gradient: tf.Tensor) => void, tensor: tf.Tensor): tf.Tensor {
    const copy = tf.customGrad((x) => ({
      value: (x as tf.Tensor).clone(),
      gradFunc: (dy) => {
        onGradient(dy);
        return dy;
      },
    }));
    return copy(tensor);
  }

  /** Converts a linear layer's weight to fewer bits, for that layer's use only. Throws EngineError. */
  pack(kind: Exclude<WeightKind, 'float32'>): void {
    const { weight, scale } = packWeight(this.value, kind);
    this.dispose();
    this.packed = { weight: tf.keep(weight), scale: scale && tf.keep(scale) };
  }

  /** Gives the parameter its initial value, drawn from a stream of `random` that is named after it. */
  initialize(random: Random): void {
    this.value = tf.tidy(() => this.initializer(this.shape, random.fork(this.name)));
  }

  async read(): Promise<Float32Array> {
    return (await this.value.data()) as Float32Array;
  }

  dispose(): void {
    this.tensor?.dispose();
    this.tensor = undefined;
    tf.dispose([this.packed?.weight, this.packed?.scale].filter((x) => x !== undefined));
    this.packed = undefined;
  }
}

/** A tensor to save under its name: a parameter, or what is computed of several when it is read. */
export type Saved = Pick<Parameter, 'name' | 'shape' | 'read'>;

/** A file that parameters can be loaded from, one tensor at a time as float32. */
export interface ParameterSource {
  /** The file's path, for errors. */
  readonly path: string;
  readonly tensors: ReadonlyMap<string, { shape: readonly number[] }>;
  readFloat32(name: string): Promise<Float32Array>;
}

/** Matches no name. */
const NOTHING = /^$/;

/** Most names that an error lists; further ones are only counted. */
const LISTED = 3;

function listed(kind: string, names: string[]): string {
  if (names.length === 0) return '';
  const more = names.length > LISTED ? `, … (${names.length} in all)` : '';
  return `; ${kind}: ${names.slice(0, LISTED).join(', ')}${more}`;
}

/** All parameters and buffers of a model by checkpoint name. They are declared first and given values later. */
export class Parameters implements Iterable<Parameter> {
  private readonly byName = new Map<string, Parameter>();

  [Symbol.iterator](): Iterator<Parameter> {
    return this.byName.values();
  }

  get(name: string): Parameter | undefined {
    return this.byName.get(name);
  }

  /** Number of trainable scalars; buffers do not count. */
  get count(): number {
    return [...this].reduce((sum, p) => sum + (p.buffer ? 0 : p.size), 0);
  }

  /** Those of the parameters that `chosen` accepts; they stay the same objects. */
  filter(chosen: (parameter: Parameter) => boolean): Parameters {
    const some = new Parameters();
    for (const p of this) if (chosen(p)) some.declare(p);
    return some;
  }

  /** Declares names that begin with `prefix.`. */
  scope(prefix = ''): Scope {
    return new Scope(this, prefix);
  }

  declare(parameter: Parameter): Parameter {
    if (this.byName.has(parameter.name)) throw new Error(`parameter ${parameter.name} is declared twice`);
    this.byName.set(parameter.name, parameter);
    return parameter;
  }

  /** Gives every parameter its initial value, each drawn from a random stream of its own, named after it. */
  initialize(random: Random): void {
    for (const p of this) p.initialize(random);
  }

  /**
   * Loads every value from `source`, strictly: the names and shapes must be the same.
   * `optional` matches parameters that may be absent and are then zero: buffers that some files lack.
   * `ignore` matches tensors of the source that are not part of this model.
   * Throws CheckpointError listing missing, unexpected and misshapen names, and then changes nothing. If reading a tensor
   * fails, no parameter has a value afterwards.
   */
  async load(source: ParameterSource, leniency: { optional?: RegExp; ignore?: RegExp } = {}): Promise<void> {
    this.check(source, leniency);
    try {
      for (const p of this)
        p.value = source.tensors.has(p.name)
          ? tf.tensor(await source.readFloat32(p.name), p.shape as number[])
          : tf.zeros(p.shape as number[]);
    } catch (error) {
      this.dispose();
      throw error;
    }
  }

  /** Throws the error that `load` would throw for names and shapes, without reading a tensor. */
  check(
    { path, tensors }: Pick<ParameterSource, 'path' | 'tensors'>,
    { optional = NOTHING, ignore = NOTHING }: { optional?: RegExp; ignore?: RegExp } = {},
  ): void {
    const missing = [...this].map((p) => p.name).filter((name) => !tensors.has(name) && !optional.test(name));
    const unexpected = [...tensors.keys()].filter((name) => !this.byName.has(name) && !ignore.test(name));
    const misshapen = [...this].flatMap(({ name, shape }) => {
      const stored = tensors.get(name)?.shape;
      return stored && stored.join() !== shape.join() ? [`${name} is [${stored}], expected [${shape}]`] : [];
    });
    if (missing.length + unexpected.length + misshapen.length === 0) return;
    const what =
      listed('misshapen', misshapen) + listed('missing', missing) + listed('unexpected', unexpected);
    throw new CheckpointError(`${path} does not fit this model${what}; use the config it was trained with`);
  }

  dispose(): void {
    for (const p of this) p.dispose();
  }
}

/** A prefix under which a layer declares its parameters. */
export class Scope {
  constructor(
    private readonly parameters: Parameters,
    private readonly prefix: string,
  ) {}

  at(name: string | number): Scope {
    return new Scope(this.parameters, this.nameOf(String(name)));
  }

  /** A parameter that is declared under this prefix. */
  get(name: string): Parameter | undefined {
    return this.parameters.get(this.nameOf(name));
  }

  /** The parameters under this prefix that are trained. */
  get trained(): Parameter[] {
    return [...this.parameters].filter((p) => !p.buffer && !p.frozen && p.name.startsWith(this.nameOf('')));
  }

  parameter(name: string, shape: readonly number[], initializer: Initializer): Parameter {
    return this.parameters.declare(new Parameter(this.nameOf(name), shape, initializer, false));
  }

  buffer(name: string, shape: readonly number[], initializer: Initializer): Parameter {
    return this.parameters.declare(new Parameter(this.nameOf(name), shape, initializer, true));
  }

  private nameOf(name: string): string {
    return this.prefix ? `${this.prefix}.${name}` : name;
  }
}

/** Writes tensors as float32, one in memory at a time. Throws OutputError. */
export async function saveParameters(
  path: string,
  parameters: Iterable<Saved>,
  metadata: Record<string, string> = {},
): Promise<void> {
  const tensors = Array.from(parameters, (p) => ({
    name: p.name,
    dtype: 'F32' as const,
    shape: p.shape,
    data: () => p.read(),
  }));
  await writeSafetensors(path, tensors, metadata);
}
