import * as tf from '@tensorflow/tfjs';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import {
  besideCpu,
  compareOperators,
  type OperatorResult,
  type Sides,
} from '../../src/doctor/compare-operators.js';
import { operatorsRows, requireSound } from '../../src/doctor/examine.js';
import { OPERATOR_CHECKS } from '../../src/doctor/operators.js';
import { selfTest } from '../../src/doctor/self-test.js';
import { openEngine } from '../../src/engine/index.js';
import type { LibtorchBackend } from '../../src/engine/libtorch/backend.js';
import { supportOf } from '../../src/engine/libtorch/kernels/register.js';
import { vocabulary } from '../../src/engine/ops/define.js';
import { pretendCuda } from '../aten/pretend-cuda.js';
import { loadEmulated } from '../cuda/emulate.js';
import { canRun, device, PRETENDED } from '../support/engines.js';

const NAMES = OPERATOR_CHECKS.map(({ name }) => name);
const ENGINE = 'libtorch';
type Precision = 'float32' | 'bf16';

// On a CPU-only machine, the device is a pretended one, without and with our own kernels; otherwise it is the machine's device.
const real = device !== 'cpu' && device !== PRETENDED;
describe.skipIf(!canRun(ENGINE)).each(real ? ['with'] : ['without', 'with'])(
  'operations on a device %s our own kernels beside the CPU',
  (kernels) => {
    let sidesOf: (precision: Precision) => Sides;

    beforeAll(async () => {
      if (real) {
        sidesOf = (precision) => besideCpu(ENGINE, { device, precision });
        return;
      }
      await openEngine(ENGINE, { device: 'cpu' });
      const backend = tf.backend() as LibtorchBackend;
      const { native } = backend;
      const ownKernels = kernels === 'with';
      if (ownKernels) await loadEmulated();
      pretendCuda({}, { ownKernels });
      const side = (own: object, precision: Precision) => async () => {
        await openEngine(ENGINE, { device: 'cpu', precision });
        Object.assign(backend, own, { operators: new Map(), schemas: new Map() });
      };
      const pretended = { native: backend.native, device: backend.device, ownKernels };
      sidesOf = (precision) => ({
        reference: side({ native, device: 'cpu' }, 'float32'),
        tested: side(pretended, precision),
        precision: { precision },
      });
    }, 300_000);

    afterAll(() => sidesOf('float32').reference()); // the next suite starts on the CPU
    let restore = () => {};
    afterEach(() => {
      restore();
      restore = () => {};
    });

    /** Replaces a kernel's function by the result of `change`, on the device only. */
    function replace(name: string, change: (kernel: tf.KernelFunc) => tf.KernelFunc): void {
      const config = tf.getKernel(name, ENGINE);
      const changed = change(config.kernelFunc);
      const kernelFunc: tf.KernelFunc = (params) =>
        (tf.backend() as LibtorchBackend).device === 'cpu' ? config.kernelFunc(params) : changed(params);
      tf.unregisterKernel(name, ENGINE);
      tf.registerKernel({ ...config, kernelFunc });
      restore = () => {
        tf.unregisterKernel(name, ENGINE);
        tf.registerKernel(config);
      };
    }

    async function resultsOf(only?: string[], precision: Precision = 'float32'): Promise<OperatorResult[]> {
      const results: OperatorResult[] = [];
      for await (const result of compareOperators(sidesOf(precision), { only })) results.push(result);
      return results;
    }

    /** The kernels that `run` calls. */
    async function kernelsOf(run: () => Promise<unknown>): Promise<Set<string>> {
      const spy = vi.spyOn(tf.engine(), 'runKernel');
      await run();
      const names = new Set(spy.mock.calls.map(([name]) => name));
      spy.mockRestore();
      return names;
    }

    it.each(['float32', 'bf16'] as const)('agree in %s, and leave nothing behind', async (precision) => {
      await sidesOf(precision).tested();
      const before = tf.memory();
      let results: OperatorResult[] = [];
      const ran = await kernelsOf(async () => {
        results = await resultsOf(undefined, precision);
      });
      expect(results.filter(({ passed }) => !passed)).toEqual([]);
      expect(results.map(({ name }) => name)).toEqual(NAMES);
      expect(tf.memory()).toMatchObject({
        numTensors: before.numTensors,
        numDataBuffers: before.numDataBuffers,
      });
      // An operation of the vocabulary that no check runs, or one that models use.
      const vocabulary = tf.getKernelsForBackend(ENGINE).map(({ kernelName }) => kernelName);
      const own = vocabulary.filter((name) => name.startsWith('alitok.'));
      expect(own.filter((name) => !ran.has(name))).toEqual([]);
      await sidesOf('float32').reference();
      const used = await kernelsOf(selfTest);
      expect([...used].filter((name) => !ran.has(name))).toEqual([]);
    });

    it('compute each operation as its kernel was registered', async () => {
      /** The implementation of an operation, from its column in docs/operations.md and its name. */
      const seen = new Map<string, { own?: boolean; nested?: boolean; called?: boolean }>();
      const running: string[] = [];
      const engine = tf.engine();
      const backend = tf.backend() as LibtorchBackend;
      const { runKernel } = engine;
      const { call } = backend;
      const current = () => {
        const name = running.at(-1);
        if (!name?.startsWith('alitok.')) return undefined;
        const key = `${backend.device === 'cpu' ? 'cpu' : 'cuda'} ${name}`;
        if (!seen.has(key)) seen.set(key, {});
        return seen.get(key);
      };
      engine.runKernel = (...args: Parameters<typeof runKernel>) => {
        const outer = current();
        if (outer && args[0] !== 'Identity') outer.nested = true; // tfjs clones what a gradient needs
        running.push(args[0]);
        current();
        try {
          return runKernel.apply(engine, args) as never;
        } finally {
          running.pop();
        }
      };
      backend.call = (name, ...args) => {
        const kernel = current();
        if (kernel) Object.assign(kernel, { called: true }, name.startsWith('alitok::') && { own: true });
        return call.call(backend, name, ...args);
      };
      try {
        await resultsOf(OPERATOR_CHECKS.filter(({ operations }) => operations).map(({ name }) => name));
      } finally {
        engine.runKernel = runKernel;
        backend.call = call;
      }
      const found = [...seen].map(([key, { own, nested, called }]) => {
        return [key, own ? 'own' : nested ? 'composition' : called ? 'pytorch' : 'none'];
      });
      const columns = ['cpu', ...(kernels === 'with' ? ['cuda'] : [])] as ('cpu' | 'cuda')[];
      const registered = vocabulary().flatMap(({ kernelName }) =>
        columns.map((one) => [`${one} ${kernelName}`, supportOf(kernelName)?.[one] ?? 'composition']),
      );
      expect(Object.fromEntries(found)).toMatchObject(Object.fromEntries(registered));
    });

    const rewritten =
      (change: (attributes: Record<string, number | boolean>) => object) =>
      (kernel: tf.KernelFunc): tf.KernelFunc =>
      (params) =>
        kernel({ ...params, attrs: { ...params.attrs, ...change(params.attrs as never) } as never });
    const given =
      (change: (inputs: Record<string, tf.TensorInfo>) => object) =>
      (kernel: tf.KernelFunc): tf.KernelFunc =>
      (params) =>
        kernel({ ...params, inputs: { ...params.inputs, ...change(params.inputs as never) } as never });
    const result = (kernel: tf.KernelFunc, params: Parameters<tf.KernelFunc>[0]) =>
      tf.engine().makeTensorFromTensorInfo(kernel(params) as tf.TensorInfo);
    const copyOf = (input: tf.TensorInfo): Float32Array => {
      const backend = tf.backend() as LibtorchBackend;
      return (backend.native.read(backend.id(input)) as Float32Array).slice();
    };
    /** Numbers rounded to TF32's mantissa. */
    const shortened = (values: Float32Array): Float32Array => {
      const bits = new Int32Array(values.slice().buffer);
      return new Float32Array(bits.map((value) => (value + 0x1000) & ~0x1fff).buffer);
    };
    /** The nearest codes, found with TF32 products. */
    const byShortProducts = (): tf.KernelFunc => (params) => {
      const [z, codebook] = ['z', 'codebook'].map((name) => {
        const input = params.inputs[name] as tf.TensorInfo;
        const values = copyOf(input);
        const tensor = (data: Float32Array) => tf.tensor2d(data, input.shape as [number, number]);
        return { exact: tensor(values), short: tensor(shortened(values)) };
      });
      const norms = codebook.exact.square().sum(-1);
      return norms.sub(tf.matMul(z.short, codebook.short, false, true).mul(2)).argMin(-1);
    };

    describe.each(['float32', 'bf16'] as const)('in %s', (precision) => {
      it.each<[string, string, string, (kernel: tf.KernelFunc) => tf.KernelFunc]>([
        [
          'a mask that is not there',
          'alitok.Attention',
          'attention, causal',
          rewritten(() => ({ causal: false })),
        ],
        [
          'a key too many',
          'alitok.Attention',
          'attention over a cache',
          rewritten(() => ({ keyLength: 14 })),
        ],
        ['a bias that is not there', 'alitok.Linear', 'linear', given(() => ({ bias: undefined }))],
        [
          'a turn the other way',
          'alitok.Rotary',
          'rotary',
          rewritten(({ inverse }) => ({ inverse: !inverse })),
        ],
        [
          'swapped inputs',
          'alitok.SwiGLU',
          'swiGLU',
          given(({ gate, value }) => ({ gate: value, value: gate })),
        ],
        kernels === 'with'
          ? [
              'a row of a cache too far',
              'alitok.GeneratorStep',
              'decoding',
              given(() => ({ position: tf.tensor1d([8], 'int32') })),
            ]
          : ['a row of a cache too far', 'alitok.CacheWrite', 'decoding', rewritten(() => ({ position: 8 }))],
        ['other draws', 'alitok.Dropout', 'dropout', rewritten(({ seed }) => ({ seed: Number(seed) + 1 }))],
        ['a scale left out', 'alitok.AdamW', 'adamW', rewritten(() => ({ gradientScale: 1 }))],
        ['short mantissas', 'alitok.NearestCode', 'nearestCode', byShortProducts],
        [
          'another share',
          'alitok.DrawCodes',
          'drawCodes of top_k and top_p',
          rewritten(() => ({ top_p: 0.6 })),
        ],
        [
          'numbers that are none',
          'alitok.GeluGrad',
          'gelu',
          (kernel) => (params) => result(kernel, params).mul(Number.NaN),
        ],
        [
          'a little too much',
          'alitok.LayerNorm',
          'layerNorm',
          (kernel) => (params) => result(kernel, params).mul(1.0002),
        ],
      ])('finds %s', async (_, kernel, name, change) => {
        replace(kernel, change);
        const [result] = await resultsOf([name], precision);
        expect(result).toMatchObject({ name, passed: false });
        expect(result.failure).toBeUndefined();
        expect(result.error).toBeGreaterThan(result.limit);
      });
    });

    // Our own kernels round it again at once.
    it.runIf(kernels === 'without')(
      'finds a bfloat16 copy that was not updated with its float32 numbers',
      async () => {
        const spy = vi.spyOn(tf.backend() as LibtorchBackend, 'overwritten').mockReturnValue();
        const results = await resultsOf(['linear after a step of AdamW'], 'bf16');
        spy.mockRestore();
        expect(results).toMatchObject([{ passed: false, worst: 'after' }]);
      },
    );

    it('the codebook entries are so close that short mantissas find many wrong codes', async () => {
      replace('alitok.NearestCode', byShortProducts);
      const [{ error }] = await resultsOf(['nearestCode']);
      expect(error).toBeGreaterThan(0.05);
    });

    const failing = (message: string) => () => () => {
      throw new Error(`${message}\nand where in C++`);
    };

    it('a failing operation is reported, and the next one runs', async () => {
      replace('alitok.Gelu', failing('no kernel image is available for execution on the device'));
      const [failed, next] = await resultsOf(['gelu', 'swiGLU']);
      expect(failed).toMatchObject({
        passed: false,
        failure: 'no kernel image is available for execution on the device',
      });
      expect(failed.lost).toBeUndefined();
      expect(next).toMatchObject({ name: 'swiGLU', passed: true });
    });

    it('stops when the device is lost', async () => {
      replace('alitok.Gelu', failing('CUDA error: device-side assert triggered'));
      const results = await resultsOf(['gelu', 'swiGLU']);
      expect(results).toMatchObject([{ name: 'gelu', passed: false, lost: true }]);
    });
  },
);

describe("doctor's report on operations", () => {
  const right = { name: 'linear', error: 1e-6, worst: 'y', limit: 1e-4, milliseconds: 1, passed: true };
  const all = NAMES.map((name) => ({ ...right, name }));
  const chosen = { name: 'libtorch', description: 'PyTorch', threads: 4 } as const;
  const passed = { passed: true, worst: '', error: 0, compared: 1 };

  it('one line if all are right', () => {
    const farther = { ...right, name: 'attention', worst: 'gradient of k', error: 3.1e-5 };
    expect(operatorsRows([...all.slice(1), farther])).toEqual([
      [
        'operators',
        `${NAMES.length} of ${NAMES.length} agree with the CPU; largest error 3.1e-5 (attention, gradient of k)`,
      ],
    ]);
    expect(() => requireSound({ chosen, selfTest: passed, operators: all })).not.toThrow();
    expect(() => requireSound({ chosen, selfTest: passed })).not.toThrow();
  });

  it('a line for each wrong one, and an error', () => {
    const wrong = { ...right, name: 'gelu', error: 0.3, worst: 'gradient of x', passed: false };
    const failure = 'CUDA error: an illegal memory access was encountered';
    const lost = { ...right, name: 'swiGLU', error: Number.NaN, passed: false, failure, lost: true };
    const operators = [right, wrong, lost];
    expect(operatorsRows(operators)).toEqual([
      ['operators', `1 of ${NAMES.length} agree with the CPU; largest error 1.0e-6 (linear, y)`],
      ['', 'gelu is WRONG: error 3.0e-1 in gradient of x, more than 0.0001'],
      ['', `swiGLU FAILED: ${failure}`],
      ['', 'after that the device did not respond: the others were not run'],
    ]);
    expect(() => requireSound({ chosen, selfTest: passed, operators })).toThrow(
      /the results of libtorch on its device differ from those on the CPU \(gelu; swiGLU\)/,
    );
  });
});
