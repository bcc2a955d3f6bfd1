import * as tf from '@tensorflow/tfjs';
import type { LibtorchBackend } from '../../src/engine/libtorch/backend.js';
import type { Argument, Native, TensorId } from '../../src/engine/libtorch/bridge.js';
import { launchesOf } from './launches.js';
import { GRAPH_OPERATORS, Graphs } from './pretend-graphs.js';
import { misfit, schemaOf } from './schemas.js';

// Simulates a CUDA device on the CPU. The engine's kernels take the same paths as on a CUDA device, each call is checked against
// the schemas of all versions, and PyTorch computes it on the CPU. The few operators that only CUDA has, and that an old PyTorch
// lacks, are composed of other operators here. They check their arguments as strictly as PyTorch's own do. As on a CUDA device,
// bfloat16 numbers are accumulated in float32, and after an index out of range all calls fail.

const DEVICE = 'cuda:0';
const FIRST_COMPOSED = 1_000_000;
const FIRST_OF_GRAPHS = 2_000_000;
const [FLOAT, HALF] = [6, 15];

const FLASH = '_scaled_dot_product_flash_attention';
const EFFICIENT = '_scaled_dot_product_efficient_attention';

/** Records of what the device has done so far. */
export interface Observed {
  /** How often each operator was called. */
  calls: Map<string, number>;
  /** Each time the host waited for the device: to read values, or for an operator whose result's size depends on values. */
  waits: string[];
  /** How many numbers the host sent, not counting scalars. */
  sent: number;
  /** How many commands the device got, not counting those of graphs (launches.ts). Counted only if our own kernels are used. */
  launches: number;
  /** The number of graphs that have not been closed. */
  readonly graphs: number;
}

/** Operators whose CUDA kernels accept mixed types, because they promote them (TensorIterator). */
const PROMOTING = /^(add|sub|mul)\.Tensor$/;

const WAITING = /^(masked_select|nonzero|unique|_local_scalar_dense|item)/;

/** The real module behind each simulated one. */
const reality = new WeakMap<Native, Native>();

/** The operators that only CUDA has, composed of those that `call` runs. */
function compositions(call: (name: string, ...args: Argument[]) => TensorId, native: Native) {
  const require = (right: boolean, what: string) => {
    if (!right) throw new Error(`a CUDA kernel would refuse: ${what}`);
  };
  const whole = (x: TensorId) => {
    const shape = native.shape(x);
    const strides = shape.map((_, axis) => call('stride.int', x, axis));
    let expected = 1;
    return [...shape.keys()].reverse().every((axis) => {
      const right = shape[axis] === 1 || strides[axis] === expected;
      expected *= shape[axis];
      return right;
    });
  };

  const float = (x: TensorId) => call('to.dtype', x, FLOAT);

  function probabilities(q: TensorId, k: TensorId, causal: boolean): TensorId {
    const [, , queries, width] = native.shape(q);
    const [, , keys] = native.shape(k);
    const products = call('matmul', float(q), call('transpose.int', float(k), -2, -1));
    const scores = call('mul.Scalar', products, 1 / Math.sqrt(width));
    // Both kernels align their mask with the first key.
    const hidden = call('triu', call('ones', [queries, keys], 11, null, 'cpu'), 1);
    const masked = causal ? call('masked_fill.Scalar', scores, hidden, Number.NEGATIVE_INFINITY) : scores;
    return call('_softmax', masked, -1, false);
  }

  const shapesFit = (...tensors: TensorId[]) => {
    for (const x of tensors) {
      const shape = native.shape(x);
      require(shape.length === 4, `four dimensions, not ${shape.length}`);
      require(shape[3] % 8 === 0, `heads ${shape[3]} wide, no multiple of 8`);
      require(call('stride.int', x, 3) === 1, 'the numbers of a head do not lie together');
    }
  };

  /** The seeds that a forward pass returns and that its gradient must be given. */
  const SEEDS = [1234, 5678];
  const seeds = () => SEEDS.map((seed) => call('full', [], seed, 4, null, 'cpu'));
  const areSeeds = (...ids: TensorId[]) =>
    ids.every((id, i) => native.shape(id).length === 0 && native.read(id)[0] === SEEDS[i]);
  const isSums = (id: TensorId, q: TensorId) =>
    native.shape(id).join() === native.shape(q).slice(0, 3).join();

  function attend(q: TensorId, k: TensorId, v: TensorId, causal: boolean, type: number) {
    const p = probabilities(q, k, causal);
    return { y: call('to.dtype', call('matmul', p, float(v)), type), sums: call('sum.dim_IntList', p, [-1]) };
  }

  function differentiate(dy: TensorId, [q, k, v]: TensorId[], causal: boolean, type: number): TensorId[] {
    const p = probabilities(q, k, causal);
    const dp = call('matmul', float(dy), call('transpose.int', float(v), -2, -1));
    const scale = 1 / Math.sqrt(native.shape(q)[3]);
    const ds = call('mul.Scalar', call('_softmax_backward_data', dp, p, -1, FLOAT), scale);
    const dv = call('matmul', call('transpose.int', p, -2, -1), float(dy));
    const dq = call('matmul', ds, float(k));
    const dk = call('matmul', call('transpose.int', ds, -2, -1), float(q));
    return [dq, dk, dv].map((x) => call('to.dtype', x, type));
  }

  return {
    'mm.dtype': (a: TensorId, b: TensorId, type: number) => {
      const half = (x: TensorId) => native.call(native.find('aten::result_type', 'Tensor')!, x, x) === HALF;
      require(half(a) && half(b) && type === FLOAT, 'other types than bfloat16, and float32 of it');
      return call('mm', float(a), float(b));
    },
    _fused_sdp_choice: (q: TensorId, k: TensorId, v: TensorId) => {
      require(native.shape(q).length === 4 && native.shape(k).join() === native.shape(v).join(), 'shapes');
      return (tf.backend() as LibtorchBackend).precision === 'bf16' ? 1 : 2;
    },
    [FLASH]: (q: TensorId, k: TensorId, v: TensorId, dropout: number, causal: boolean, mask: boolean) => {
      shapesFit(q, k, v);
      require(dropout === 0 && !mask, 'dropout');
      const { y, sums } = attend(q, k, v, causal, HALF);
      const [longestQ, longestK] = [native.shape(q)[2], native.shape(k)[2]];
      return [y, sums, null, null, longestQ, longestK, ...seeds(), call('zeros', [0], FLOAT, null, 'cpu')];
    },
    [`${FLASH}_backward`]: (
      dy: TensorId,
      q: TensorId,
      k: TensorId,
      v: TensorId,
      y: TensorId,
      sums: TensorId,
      _startsQ: null,
      _startsK: null,
      longestQ: number,
      longestK: number,
      dropout: number,
      causal: boolean,
      seed: TensorId,
      offset: TensorId,
    ) => {
      shapesFit(dy, q, k, v, y);
      require(isSums(sums, q) && areSeeds(seed, offset) && dropout === 0, 'what the forward pass found');
      require(longestQ === native.shape(q)[2] && longestK === native.shape(k)[2], 'lengths');
      return differentiate(dy, [q, k, v], causal, HALF);
    },
    [EFFICIENT]: (
      q: TensorId,
      k: TensorId,
      v: TensorId,
      mask: null,
      withSums: boolean,
      dropout: number,
      causal: boolean,
    ) => {
      shapesFit(q, k, v);
      require(mask === null && dropout === 0, 'a mask, or dropout');
      const { y, sums } = attend(q, k, v, causal, FLOAT);
      return [y, withSums ? sums : call('zeros', [0], FLOAT, null, 'cpu'), ...seeds()];
    },
    [`${EFFICIENT}_backward`]: (
      dy: TensorId,
      q: TensorId,
      k: TensorId,
      v: TensorId,
      mask: null,
      y: TensorId,
      sums: TensorId,
      seed: TensorId,
      offset: TensorId,
      dropout: number,
      wanted: boolean[],
      causal: boolean,
    ) => {
      shapesFit(dy, q, k, v, y);
      require(mask === null &&
        dropout === 0 &&
        wanted.join() === 'true,true,true,false', 'a mask, or dropout');
      require(isSums(sums, q) && areSeeds(seed, offset), 'what the forward pass found');
      return [...differentiate(dy, [q, k, v], causal, FLOAT), null];
    },
    _fused_adamw_: (
      parameters: TensorId[],
      gradients: TensorId[],
      ms: TensorId[],
      vs: TensorId[],
      largest: TensorId[],
      steps: TensorId[],
      ...[lr, beta1, beta2, decay, epsilon, amsgrad, maximize]: [
        number,
        number,
        number,
        number,
        number,
        boolean,
        boolean,
      ]
    ) => {
      require(largest.length === 0 && !amsgrad && !maximize, 'AMSGrad');
      parameters.forEach((p, i) => {
        const [g, m, v] = [gradients[i], ms[i], vs[i]];
        for (const x of [p, g, m, v]) require(whole(x), 'tensors that do not lie in memory alike');
        const step = native.read(steps[i])[0];
        call('mul_.Scalar', p, 1 - lr * decay);
        call('lerp_.Scalar', m, g, 1 - beta1);
        call('addcmul_', call('mul_.Scalar', v, beta2), g, g, 1 - beta2);
        const root = call('div.Scalar', call('sqrt', v), Math.sqrt(1 - beta2 ** step));
        call('addcdiv_', p, m, call('add.Scalar', root, epsilon), -lr / (1 - beta1 ** step));
      });
      return [];
    },
  };
}

/**
 * Makes the current engine, libtorch on the CPU, work as if it had a CUDA device. Returns what it observes from then on.
 * @param others schemas of a PyTorch version that differs from those of the fixtures, by operator
 * @param ownKernels whether to use our own kernels, through the emulator (../cuda/emulate.ts), which must be loaded before
 */
export function pretendCuda(
  others: Readonly<Record<string, string>> = {},
  { ownKernels = false } = {},
): Observed {
  const backend = tf.backend() as LibtorchBackend & { native: Native };
  const real = reality.get(backend.native) ?? backend.native;
  const observed = { calls: new Map<string, number>(), waits: [] as string[], sent: 0, launches: 0 };
  const names: string[] = [];
  const numbers = new Map<string, number>();
  let temporary: TensorId[] = [];
  const onCpu = (value: Argument): Argument => (value === DEVICE ? 'cpu' : value);

  const direct = (name: string, ...args: Argument[]) => {
    const [base, overload = ''] = name.split('.');
    let number = numbers.get(name);
    if (number === undefined) {
      number = real.find(`aten::${base}`, overload)!;
      numbers.set(name, number);
    }
    return real.call(number, ...args);
  };
  const typeOf = (x: TensorId): number => direct('result_type.Tensor', x, x);

  /** Calls an operator inside a composed one. */
  const within = (name: string, ...args: Argument[]): TensorId => {
    const result = direct(name, ...args);
    if (name !== 'stride.int') temporary.push(result);
    return result;
  };

  /**
   * Runs an operator. bfloat16 arguments are multiplied and accumulated in float32, and the result is rounded, as in CUDA's
   * kernels. PyTorch's loops on a CPU without bfloat16 instructions round every intermediate sum.
   */
  const run = (name: string, operator: number, args: Argument[]) => {
    const { parameters, aliases } = schemaOf(name)!;
    if (aliases) return real.call(operator, ...args); // views, type conversions and operators that write to an argument
    const widened: TensorId[] = [];
    let plain = false;
    const promotes = PROMOTING.test(name);
    const widen = (x: TensorId | null) => {
      const type = x === null ? undefined : typeOf(x);
      if (type === FLOAT) plain = true;
      if (type !== HALF) return x;
      const float: TensorId = direct('to.dtype', x, FLOAT);
      widened.push(float);
      return float;
    };
    const given = args.map((value, i) => {
      if (!parameters[i].type.startsWith('Tensor') || value === undefined) return value;
      return Array.isArray(value) ? value.map(widen) : widen(value as TensorId | null);
    });
    const round = (x: TensorId | null) => {
      if (x === null || typeOf(x) !== FLOAT) return x;
      const half: TensorId = direct('to.dtype', x, HALF);
      real.free(x);
      return half;
    };
    if (widened.length === 0) return real.call(operator, ...args);
    // The result's type: stated by name, or promoted from the arguments. A single number does not widen a tensor's type.
    const stated = args[parameters.findIndex((parameter) => parameter.name === 'dtype')];
    const type = stated ?? (promotes && direct('result_type.Tensor', args[0], args[1]));
    try {
      if (plain && !promotes)
        throw new Error(`a CUDA kernel would refuse: ${name} of float32 and bfloat16 together`);
      const result = real.call(operator, ...given);
      if (type === FLOAT) return result;
      return Array.isArray(result) ? result.map(round) : round(result);
    } finally {
      widened.forEach(real.free);
    }
  };

  /** Whether an operator that reads or writes rows by index is given an index out of range. */
  const isOutOfRange = (name: string, args: Argument[]): boolean => {
    const { parameters } = schemaOf(name)!;
    const given = (pattern: RegExp) =>
      args[parameters.findIndex((parameter) => pattern.test(parameter.name))];
    const indices = given(/^ind(ex|ices)$/);
    if (indices === undefined || typeof args[0] !== 'number' || /^max_pool|^select/.test(name)) return false;
    const shape = real.shape(args[0]);
    const axis = (given(/^dim$/) ?? 0) as number;
    const rows = given(/^num_weights$/) ?? (shape.length === 0 ? 1 : shape.at(axis));
    const whole: TensorId = direct('to.dtype', indices, 3);
    const outside = real.read(whole).some((index) => index < 0 || index >= (rows as number));
    real.free(whole);
    return outside;
  };
  /** A kernel that gets such an index makes the device unusable for the whole process: all later calls fail. */
  let lost = false;
  const requireDevice = () => {
    if (lost) throw new Error('CUDA error: device-side assert triggered');
  };
  const composed = compositions(within, real) as Record<string, (...args: unknown[]) => unknown>;
  const composedNames = Object.keys(composed);

  const emulated = (name: string) => real.find(name.replace('alitok::', 'alitok_emulated::'), '');
  if (ownKernels && emulated('alitok::launches') === null) throw new Error('the emulator is not loaded');
  const launched = (): number => (ownKernels ? real.call(emulated('alitok::launches')!) : 0);
  const nameOf = (operator: number) => names[operator] ?? composedNames[operator - FIRST_COMPOSED];

  /** Runs an operator and returns its result. */
  const perform = (operator: number, args: readonly Argument[]) => {
    const name = nameOf(operator);
    if (name.startsWith('alitok::')) return real.call(operator, ...args.map(onCpu));
    if (operator < FIRST_COMPOSED) return run(name, operator, args.map(onCpu));
    temporary = [];
    const result = composed[name](...args) as TensorId | TensorId[];
    const kept = new Set([result].flat());
    for (const id of temporary) if (!kept.has(id)) real.free(id);
    return result;
  };
  const graphs = new Graphs(real, direct, perform);

  const native: Native = {
    ...real,
    find(name, overload) {
      if (/^alitok::(profile|memory)_/.test(name)) return null; // nothing to measure, as with an old PyTorch
      if (GRAPH_OPERATORS.includes(name))
        return ownKernels ? FIRST_OF_GRAPHS + GRAPH_OPERATORS.indexOf(name) : null;
      if (name.startsWith('alitok::')) {
        const own = ownKernels ? emulated(name) : null;
        if (own === null) throw new Error(`${name} is for the CPU alone`);
        names[own] = name;
        return own;
      }
      const short = name.slice(6) + (overload && `.${overload}`);
      const at = composedNames.indexOf(short);
      if (at >= 0) return FIRST_COMPOSED + at;
      const found = real.find(name, overload);
      if (found !== null) names[found] = short;
      return found;
    },
    schema(operator) {
      if (operator < FIRST_COMPOSED) return real.schema(operator);
      if (operator >= FIRST_OF_GRAPHS) return GRAPH_OPERATORS[operator - FIRST_OF_GRAPHS];
      const name = composedNames[operator - FIRST_COMPOSED];
      if (name in others) return others[name];
      return schemaOf(name)!.text;
    },
    call(operator, ...args) {
      requireDevice();
      if (operator >= FIRST_OF_GRAPHS) {
        const name = GRAPH_OPERATORS[operator - FIRST_OF_GRAPHS];
        observed.calls.set(name, (observed.calls.get(name) ?? 0) + 1);
        return graphs.command(name, args[0]);
      }
      const name = nameOf(operator);
      observed.calls.set(name, (observed.calls.get(name) ?? 0) + 1);
      if (!name.startsWith('alitok::')) {
        const problem = misfit(name, args);
        if (problem) throw new Error(problem);
        lost ||= isOutOfRange(name, args);
        requireDevice();
      }
      if (WAITING.test(name)) {
        observed.waits.push(name);
        graphs.forbid(name);
      }
      const before = launched();
      const result = graphs.call(name, operator, args);
      if (ownKernels) observed.launches += launched() - before + launchesOf(name, args, result, real);
      return result;
    },
    fromArray(values, shape) {
      requireDevice();
      if (values.length > 1) {
        observed.sent += values.length;
        graphs.forbid('a copy from memory of JavaScript');
      }
      const made = real.fromArray(values.slice(), shape, 'cpu'); // a copy, as on a device
      graphs.made(made);
      return made;
    },
    free(tensor) {
      graphs.freed(tensor);
      real.free(tensor);
    },
    read(tensor) {
      requireDevice();
      observed.waits.push('read');
      graphs.forbid('read');
      return real.read(tensor);
    },
    readAsync(tensor) {
      requireDevice();
      observed.waits.push('read');
      graphs.forbid('read');
      return real.readAsync(tensor);
    },
  };
  reality.set(native, real);
  const found = { operators: new Map(), schemas: new Map(), refusesGraphs: false, productsWiden: undefined };
  Object.assign(backend, { native, device: DEVICE, ownKernels, ...found });
  return Object.defineProperty(observed, 'graphs', { get: () => graphs.open }) as Observed;
}
