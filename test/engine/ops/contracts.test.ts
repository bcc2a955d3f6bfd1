import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import * as tf from '@tensorflow/tfjs';
import { describe, expect, it } from 'vitest';
import { OPERATOR_CHECKS } from '../../../src/doctor/operators.js';
import { implement, OWN } from '../../../src/engine/libtorch/kernels/register.js';
import { geluOp } from '../../../src/engine/ops/activation.js';
import { attentionOp } from '../../../src/engine/ops/attention.js';
import { vocabulary } from '../../../src/engine/ops/define.js';
import * as ops from '../../../src/engine/ops/index.js';
import { linearOp } from '../../../src/engine/ops/linear.js';
import { describeEngines, device } from '../../support/engines.js';
import { forwardOperations, functionName } from './operations-page.js';

// Requirements for every operation of the vocabulary. `ops.test.ts` checks that values and gradient of each are tested.

const FOLDER = fileURLToPath(new URL('../../../src/engine/ops/', import.meta.url));
const sources = readdirSync(FOLDER).map((name) => readFileSync(FOLDER + name, 'utf8'));

describe.each(forwardOperations().map((op) => [functionName(op), op] as const))('%s', (name, op) => {
  it('is a documented function that ops/index.ts exports', () => {
    expect(ops).toHaveProperty(name, expect.any(Function));
    const documented = new RegExp(String.raw`\*/\nexport function ${name}\b`);
    expect(sources.filter((text) => documented.test(text))).toHaveLength(1);
  });

  it('has a composition, or documents what happens without a kernel', () => {
    expect([op.compose, op.instead].filter((one) => one !== undefined)).toHaveLength(1);
  });

  it('is checked on the device by a row of doctor/operators.ts', () => {
    const rows = OPERATOR_CHECKS.filter(({ operations }) => operations?.includes(op));
    expect(rows).not.toEqual([]);
  });
});

it('a name belongs to one operation', () => {
  const names = vocabulary().map(({ kernelName }) => kernelName);
  expect(names.length).toBeGreaterThan(30);
  expect(new Set(names).size).toBe(names.length);
});

describeEngines('contracts', (engine) => {
  it('no kernel is registered for an unknown operation', () => {
    const known = vocabulary().map(({ kernelName }) => kernelName);
    const own = tf.getKernelsForBackend(engine).map(({ kernelName }) => kernelName);
    expect(own.filter((name) => name.startsWith('alitok.') && !known.includes(name))).toEqual([]);
  });

  it('an operation with a composition runs on every engine', () => {
    const composed = vocabulary().filter(({ compose }) => compose);
    expect(composed.filter(({ kernelName }) => !tf.getKernel(kernelName, engine))).toEqual([]);
  });

  it('the rows of doctor/operators.ts run the operations that they name', async () => {
    const everywhere = engine === 'libtorch' && device === 'cpu';
    const { runKernel } = tf.engine();
    const ran = new Set<string>();
    const missing: string[] = [];
    try {
      for (const { name, operations = [], run } of OPERATOR_CHECKS) {
        // Operations without a composition cannot run without a kernel.
        const expected = operations.filter(({ compose }) => compose || everywhere);
        if (expected.length === 0) continue;
        const here = new Set<string>();
        tf.engine().runKernel = (...args: Parameters<typeof runKernel>) => {
          here.add(args[0]);
          return runKernel.apply(tf.engine(), args) as never;
        };
        tf.engine().startScope();
        await run();
        tf.engine().endScope();
        for (const kernel of here) ran.add(kernel);
        for (const { kernelName } of expected)
          if (!here.has(kernelName)) missing.push(`${name}: ${kernelName}`);
      }
    } finally {
      tf.engine().runKernel = runKernel;
    }
    expect(missing).toEqual([]);
    const backward = vocabulary().flatMap((op) => (op.backward ? [op.backward.kernelName] : []));
    expect(backward.filter((kernel) => !ran.has(kernel))).toEqual([]);
  });
});

// Never called: the compiler checks that each of these lines is an error.
void ((x: tf.Tensor) => {
  // @ts-expect-error an input of another name
  geluOp({ y: x });
  // @ts-expect-error an input too many
  geluOp({ x, y: x });
  // @ts-expect-error an input is missing
  attentionOp({ q: x, k: x }, { causal: true, keyLength: 1, dropout: 0, seed: 0 });
  // @ts-expect-error an attribute is missing
  attentionOp({ q: x, k: x, v: x }, { causal: true, keyLength: 1, dropout: 0 });
  // @ts-expect-error an attribute of another name
  linearOp({ x, weight: x }, { biassed: true });
  // @ts-expect-error a kernel that reads an input of another name
  implement(linearOp, OWN, ({ matrix }, _, { id, out }) => out('float32', 'neg', id(matrix)));
  // @ts-expect-error a kernel that reads an attribute of another name
  implement(linearOp, OWN, ({ x: y }, { half }, { id, out }) => out('float32', half, id(y)));
  // @ts-expect-error a kernel that uses an optional input without a check
  implement(linearOp, OWN, ({ bias }, _, { id, out }) => out('float32', 'neg', id(bias)));
  // @ts-expect-error a kernel that returns one tensor instead of several
  implement(linearOp.backward, OWN, ({ dy }, _, { id, out }) => out('float32', 'neg', id(dy)));
});
