import * as tf from '@tensorflow/tfjs';
import { registerKernels as registerLibtorch } from '../../../src/engine/libtorch/kernels/index.js';
import { type Means, supportOf } from '../../../src/engine/libtorch/kernels/register.js';
import { type AnyOperation, vocabulary } from '../../../src/engine/ops/define.js';
import '../../../src/engine/ops/index.js';
import { registerKernels as registerTensorFlow } from '../../../src/engine/tensorflow/kernels/index.js';
import { registerKernels as registerWasm } from '../../../src/engine/wasm/kernels/index.js';

/** The public function that runs an operation: `rmsNorm` for `alitok.RMSNorm`. */
export const functionName = ({ kernelName }: AnyOperation): string =>
  kernelName.replace('alitok.', '').replace(/^([A-Z]+(?=[A-Z][a-z])|[A-Z])/, (start) => start.toLowerCase());

/** Operations that models call; the others are their backward operations. */
export function forwardOperations(): AnyOperation[] {
  const all = vocabulary();
  const backward = new Set(all.map((op) => op.backward));
  return all.filter((op) => !backward.has(op));
}

const WORDS: Record<Exclude<Means, 'none'>, string> = {
  own: 'own kernel',
  pytorch: 'PyTorch',
  composition: 'composition',
};

const without = ({ instead }: AnyOperation) => instead ?? WORDS.composition;

/** The implementation of an operation in wasm, in libtorch on the CPU and on a CUDA device, and in tensorflow. */
function cells(op: AnyOperation): string[] {
  const wasm = tf.getKernel(op.kernelName, 'wasm') ? WORDS.own : without(op);
  const support = supportOf(op.kernelName);
  const libtorch = (['cpu', 'cuda'] as const).map((device) => {
    const means = support?.[device] ?? 'none';
    return means === 'none' ? without(op) : WORDS[means];
  });
  const tensorflow = tf.getKernel(op.kernelName, 'tensorflow') ? 'TensorFlow' : without(op);
  return [wasm, ...libtorch, tensorflow];
}

/** docs/operations.md, from the contracts and the kernels that engines register. Works without a built engine. */
export function operationsPage(): string {
  registerWasm();
  registerLibtorch();
  registerTensorFlow();
  const rows = forwardOperations()
    .map((op) => [functionName(op), op] as const)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .flatMap(([name, op]) => [
      [`\`${name}\``, ...cells(op), op.hasGradient ? 'yes' : 'no'],
      ...(op.backward ? [[`\`${name}\`, backward`, ...cells(op.backward), '']] : []),
    ]);
  const header = ['operation', 'wasm', 'libtorch, CPU', 'libtorch, CUDA', 'tensorflow', 'gradient'];
  const table = [header, header.map(() => '---'), ...rows].map((row) => `| ${row.join(' | ')} |`);
  return `# Operations

<!-- Written by "npm run docs:operations"; do not edit. -->

What computes each operation of the vocabulary (\`src/engine/ops\`) on each engine. *Own kernel* means alitok's own code, for at least
some shapes and precisions; *PyTorch* and *TensorFlow* mean a kernel of that library's operations; *composition* means operations of
TensorFlow.js that give the same result to rounding. The CUDA column is for devices that run alitok's own kernels. Where these cannot
run, PyTorch's operators or the composition are used, and the steps of sampling do what the wasm column says. The engine \`tensorflow\`
uses the same operations on every device, and \`cpu\` uses compositions.

An operation whose gradient has a kernel of its own has a second row, *backward*. Other gradients are made of the operation itself or of
TensorFlow.js's operations. The gradients of the \`frozen\` layers are by their input only.

${table.join('\n')}
`;
}
