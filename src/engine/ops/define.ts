import * as tf from '@tensorflow/tfjs';

// The contract of an operation: its kernel's name, its inputs, its attributes, its result and its gradient. The functions that
// models call (`attention`, `linear`, …) run it, and engines register kernels for it; both are checked against its types.

type Results = tf.Tensor | tf.Tensor[];

/** The name of an input without its `?`. */
type NameOf<N extends string> = N extends `${infer Name}?` ? Name : N;

/** The keys that a name stands for. */
type KeyOf<N extends string> = N extends `${infer Before}*${infer After}` ? `${Before}${number}${After}` : N;

/**
 * An operation's inputs by name. A name that ends in `?` is optional; `*` stands for a number, so that `x*` is any number of
 * inputs x0, x1, ….
 */
export type InputsOf<N extends string, T> = {
  [K in N as K extends `${string}?` ? never : KeyOf<K>]: T;
} & { [K in N as K extends `${infer Name}?` ? KeyOf<Name> : never]?: T };

/** What a kernel returns for a result of type R. */
export type ResultOf<R> = R extends readonly unknown[] ? tf.TensorInfo[] : tf.TensorInfo;

/**
 * An operation of the vocabulary. Called with its inputs and attributes, it runs on the current engine.
 * N: names of the inputs; A: attributes; R: result; B: the operation that computes its gradient, if that has a kernel of its own.
 */
export interface Operation<
  N extends string,
  A extends object,
  R extends Results,
  B extends AnyOperation | undefined = undefined,
> {
  (inputs: InputsOf<N, tf.Tensor>, ...attributes: object extends A ? [] : [attributes: A]): R;
  /** What tfjs's registry of kernels knows it by: `alitok.` and the public function's name, capitalized. */
  readonly kernelName: string;
  readonly inputs: readonly N[];
  /** The same result from tfjs operations, for engines without a kernel. */
  readonly compose?: (inputs: InputsOf<N, tf.Tensor>, attributes: A) => R;
  /** What is done instead on an engine without a kernel, for operations that have no composition. */
  readonly instead?: string;
  readonly backward: B;
  readonly hasGradient: boolean;
}

/** An operation of any type. */
export interface AnyOperation {
  // biome-ignore lint/suspicious/noExplicitAny: each operation's own types are in `Operation`
  (inputs: any, attributes?: any): any;
  readonly kernelName: string;
  readonly inputs: readonly string[];
  // biome-ignore lint/suspicious/noExplicitAny: as above
  readonly compose?: (inputs: any, attributes: any) => Results;
  readonly instead?: string;
  readonly backward: AnyOperation | undefined;
  readonly hasGradient: boolean;
}

interface Composed<N extends string, A extends object, R extends Results, S extends string, B> {
  name: `alitok.${string}`;
  inputs: readonly N[];
  /** The same result from tfjs operations, for engines without a kernel. */
  compose: (inputs: InputsOf<N, tf.Tensor>, attributes: A) => R;
  /** The inputs that the gradient needs, and `output` if it needs the result. */
  save?: readonly S[];
  /** The operation that computes the gradient, if it has a kernel of its own. */
  backward?: B;
  /**
   * The gradient by each differentiable input, computed from the gradient of the result and from what was saved. A list of
   * inputs means that `backward`, given `dy`, what was saved and the same attributes, returns their gradients in this order.
   */
  gradient?:
    | readonly NoInfer<NameOf<N>>[]
    | ((
        dy: tf.Tensor,
        saved: Record<NoInfer<S>, tf.Tensor>,
        attributes: NoInfer<A>,
      ) => { [K in NoInfer<NameOf<N>>]?: tf.Tensor });
}

type Gradient = (dy: tf.Tensor, saved: tf.NamedTensorMap, attributes: object) => tf.NamedTensorMap;

const operations: AnyOperation[] = [];

/** Every operation that has been defined, backward operations included. */
export const vocabulary = (): readonly AnyOperation[] => operations;

/**
 * Adds an operation to the vocabulary. Its gradients by all inputs are computed at once, because backward kernels return them
 * together.
 */
export function defineOp<
  N extends string,
  A extends object = object,
  R extends Results = tf.Tensor,
  S extends NameOf<N> | 'output' = never,
  B extends AnyOperation | undefined = undefined,
>(definition: Composed<N, A, R, S, B>): Operation<N, A, R, B> {
  const { name, inputs, compose, save = [], backward, gradient } = definition;
  if (gradient)
    registerGradient(
      name,
      save,
      Array.isArray(gradient) ? inOrder(backward!, gradient) : (gradient as unknown as Gradient),
    );
  const properties = { compose, backward, hasGradient: gradient !== undefined };
  return add(name, inputs, properties) as unknown as Operation<N, A, R, B>;
}

/** Adds an operation without a composition. `instead` says in a few words what is done on an engine without a kernel. */
export function defineKernel<N extends string, A extends object, R extends Results>({
  name,
  inputs,
  instead,
}: {
  name: `alitok.${string}`;
  inputs: readonly N[];
  instead: string;
}): Operation<N, A, R> {
  const properties = { instead, backward: undefined, hasGradient: false };
  return add(name, inputs, properties) as unknown as Operation<N, A, R>;
}

function add(
  kernelName: string,
  inputs: readonly string[],
  properties: Pick<AnyOperation, 'compose' | 'instead' | 'backward' | 'hasGradient'>,
): AnyOperation {
  const optional = inputs.some((name) => name.endsWith('?'));
  const run = (given: Record<string, tf.Tensor | undefined>, attributes: tf.NamedAttrMap = {}) =>
    tf.engine().runKernel(kernelName, optional ? present(given) : (given as tf.NamedTensorMap), attributes);
  const operation = Object.assign(run, { kernelName, inputs, ...properties });
  operations.push(operation);
  return operation;
}

/** The inputs that are given; tfjs accepts no `undefined`. */
function present(inputs: Record<string, tf.Tensor | undefined>): tf.NamedTensorMap {
  const given: tf.NamedTensorMap = {};
  for (const name in inputs) {
    const tensor = inputs[name];
    if (tensor !== undefined) given[name] = tensor;
  }
  return given;
}

/** The gradient that `backward` computes, by the inputs in the order of its results. */
const inOrder =
  (backward: AnyOperation, names: readonly string[]): Gradient =>
  (dy, saved, attributes) => {
    const gradients = [backward({ dy, ...saved }, attributes)].flat() as tf.Tensor[];
    return Object.fromEntries(names.map((name, i) => [name, gradients[i]]));
  };

function registerGradient(kernelName: string, save: readonly string[], gradient: Gradient): void {
  const inputsToSave = save.filter((name) => name !== 'output');
  const saveOutput = inputsToSave.length < save.length;
  const names = saveOutput ? [...inputsToSave, 'output'] : inputsToSave;
  tf.registerGradient({
    kernelName,
    inputsToSave,
    outputsToSave: [saveOutput],
    gradFunc: (dy, saved, attributes) => {
      const values = Object.fromEntries(names.map((key, i) => [key, saved[i]]));
      const gradients = gradient(dy as tf.Tensor, values, attributes);
      return Object.fromEntries(Object.entries(gradients).map(([key, value]) => [key, () => value]));
    },
  });
}

/** Whether the current engine has a kernel for an operation. After `registerCompositions`, a composition counts. */
export const hasKernel = ({ kernelName }: AnyOperation): boolean =>
  tf.getKernel(kernelName, tf.getBackend()) !== undefined;

/** Runs an operation's composition on tensors of the current engine, for kernels that cover some devices only. */
export function composed<N extends string, A extends object, R extends Results>(
  { compose }: Pick<Operation<N, A, R>, 'compose'>,
  inputs: InputsOf<N, tf.TensorInfo>,
  attributes: A,
): ResultOf<R> {
  return tf.tidy(() => compose!(inputs as InputsOf<N, tf.Tensor>, attributes)) as ResultOf<R>;
}

/** Registers the composition of every operation that the engine `backendName` has no kernel for. */
export function registerCompositions(backendName: string): void {
  for (const operation of operations) {
    const { kernelName, compose } = operation;
    if (!compose || tf.getKernel(kernelName, backendName)) continue;
    tf.registerKernel({
      kernelName,
      backendName,
      kernelFunc: ({ inputs, attrs }) => tf.tidy(() => compose(inputs, attrs ?? {})),
    });
  }
}
