import type { DataType } from '@tensorflow/tfjs';
import { ScalarType } from '../backend.js';
import { keepsHalf } from './products.js';
import { register } from './register.js';

/** tfjs kernels with one input that are one ATen operator. */
const UNARY: Record<string, string> = {
  Abs: 'abs',
  Acos: 'acos',
  Acosh: 'acosh',
  Asin: 'asin',
  Asinh: 'asinh',
  Atan: 'atan',
  Atanh: 'atanh',
  Ceil: 'ceil',
  Cos: 'cos',
  Cosh: 'cosh',
  Erf: 'erf',
  Exp: 'exp',
  Expm1: 'expm1',
  Floor: 'floor',
  Log: 'log',
  Log1p: 'log1p',
  Neg: 'neg',
  Reciprocal: 'reciprocal',
  Relu: 'relu',
  Relu6: 'relu6',
  Round: 'round',
  Rsqrt: 'rsqrt',
  Selu: 'selu',
  Sigmoid: 'sigmoid',
  Sign: 'sign',
  Sin: 'sin',
  Sinh: 'sinh',
  Sqrt: 'sqrt',
  Square: 'square',
  Tan: 'tan',
  Tanh: 'tanh',
};

/** Those that keep the type of an integer input. */
const KEEP_TYPE = new Set(['Abs', 'Ceil', 'Floor', 'Neg', 'Relu', 'Relu6', 'Round', 'Sign', 'Square']);

/** Those that return booleans. */
const PREDICATES: Record<string, string> = {
  IsFinite: 'isfinite',
  IsInf: 'isinf',
  IsNan: 'isnan',
  LogicalNot: 'logical_not',
};

/** tfjs kernels with inputs a and b, which both libraries broadcast alike. */
const BINARY: Record<string, string> = {
  Atan2: 'atan2',
  FloorDiv: 'floor_divide',
  Maximum: 'maximum',
  Minimum: 'minimum',
  Mod: 'remainder.Tensor',
  Multiply: 'mul.Tensor',
  Pow: 'pow.Tensor_Tensor',
  RealDiv: 'div.Tensor',
  Sub: 'sub.Tensor',
};

const COMPARISONS: Record<string, string> = {
  Equal: 'eq.Tensor',
  Greater: 'gt.Tensor',
  GreaterEqual: 'ge.Tensor',
  Less: 'lt.Tensor',
  LessEqual: 'le.Tensor',
  LogicalAnd: 'logical_and',
  LogicalOr: 'logical_or',
  NotEqual: 'ne.Tensor',
};

export function registerElementwise(): void {
  for (const [name, operator] of Object.entries(UNARY))
    register(name, ({ x }, _, { id, out }) =>
      out(KEEP_TYPE.has(name) ? x.dtype : 'float32', operator, id(x)),
    );
  for (const [name, operator] of Object.entries(PREDICATES))
    register(name, ({ x }, _, { id, out }) => out('bool', operator, id(x)));
  for (const [name, operator] of Object.entries(BINARY))
    register(name, ({ a, b }, _, { id, out }) => out(a.dtype, operator, id(a), id(b)));
  for (const [name, operator] of Object.entries(COMPARISONS))
    register(name, ({ a, b }, _, { id, out }) => out('bool', operator, id(a), id(b)));

  register('Add', ({ a, b }, _, kernel) => {
    const { id, either, out, outHalf, backend } = kernel;
    const halves = [a, b].filter((x) => backend.isHalf(x)).length;
    if (halves === 2 && keepsHalf(kernel)) return outHalf('add.Tensor', either(a), either(b));
    // A residual connection: PyTorch promotes the sum of both types to float32, but ignores the type of a scalar.
    const scalar = a.shape.length === 0 || b.shape.length === 0;
    const given = halves === 1 && !scalar ? either : id;
    return out(a.dtype, 'add.Tensor', given(a), given(b));
  });
  register('SquaredDifference', ({ a, b }, _, { id, use, out }) =>
    out(a.dtype, 'square', use('sub.Tensor', id(a), id(b))),
  );
  register('AddN', (inputs, _, { id, use, out }) => {
    const [first, ...rest] = Object.values(inputs);
    if (rest.length === 0) return out(first.dtype, 'clone', id(first));
    const last = rest.pop()!;
    const sum = rest.reduce((total, x) => use('add.Tensor', total, id(x)), id(first));
    return out(first.dtype, 'add.Tensor', sum, id(last));
  });
  register<{ alpha: number }>('LeakyRelu', ({ x }, { alpha }, { id, use, out }) =>
    out(
      'float32',
      'leaky_relu',
      x.dtype === 'float32' ? id(x) : use('to.dtype', id(x), ScalarType.float32),
      alpha,
    ),
  );
  register('Elu', ({ x }, _, { id, out }) => out(x.dtype, 'elu', id(x)));
  register('EluGrad', ({ dy, y }, _, { id, use, out }) => {
    const slope = use('add.Scalar', use('clamp', id(y), null, 0), 1);
    return out(dy.dtype, 'mul.Tensor', id(dy), slope);
  });
  register('Prelu', ({ x, alpha }, _, { id, use, out }) => {
    const negative = use('mul.Tensor', use('clamp', id(x), null, 0), id(alpha));
    return out('float32', 'add.Tensor', use('relu', id(x)), negative);
  });
  register('Softplus', ({ x }, _, { id, out }) => out(x.dtype, 'softplus', id(x)));
  register<{ alpha: number }>('Step', ({ x }, { alpha }, { id, use, out }) => {
    const positive = use('to.dtype', use('gt.Scalar', id(x), 0), 6);
    const stepped = use('add.Scalar', use('mul.Scalar', positive, 1 - alpha), alpha);
    const nan = use('isnan', id(x));
    return out(x.dtype, 'where.self', nan, id(x), stepped);
  });
  register<{ clipValueMin: number; clipValueMax: number }>(
    'ClipByValue',
    ({ x }, { clipValueMin, clipValueMax }, { id, out }) =>
      out(x.dtype, 'clamp', id(x), clipValueMin, clipValueMax),
  );
  register('Select', ({ condition, t, e }, _, { id, use, out }) => {
    // A condition of rank 1 selects whole rows.
    const rows = condition.shape.length < t.shape.length && condition.shape.length > 0;
    const shape = [...condition.shape, ...t.shape.slice(condition.shape.length).map(() => 1)];
    const chosen = rows ? use('reshape', id(condition), shape) : id(condition);
    return out(t.dtype, 'where.self', use('to.dtype', chosen, 11), id(t), id(e));
  });
  register<{ dtype: DataType }>('Cast', ({ x }, { dtype }, { id, out, use, backend }) => {
    if (x.dtype === dtype) return backend.alias(x);
    // Rounds towards zero, as tfjs does.
    if (dtype === 'bool') return out('bool', 'ne.Scalar', id(x), 0);
    const source = x.dtype === 'float32' && dtype === 'int32' ? use('trunc', id(x)) : id(x);
    return out(dtype, 'to.dtype', source, backend.scalarType(dtype), false, true);
  });
  register('Identity', ({ x }, _, { backend }) => backend.alias(x));
  register('ZerosLike', ({ x }, _, { id, out }) => out(x.dtype, 'zeros_like', id(x)));
  register('OnesLike', ({ x }, _, { id, out }) => out(x.dtype, 'ones_like', id(x)));
}
