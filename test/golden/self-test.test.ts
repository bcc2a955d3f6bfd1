import * as tf from '@tensorflow/tfjs';
import { afterEach, expect, it } from 'vitest';
import { GOLDEN_VALUES } from '../../src/doctor/golden-values.js';
import { selfTest } from '../../src/doctor/self-test.js';
import { describeEngines } from '../support/engines.js';

describeEngines('the self-test of alitok doctor', (engine) => {
  let restore = () => {};
  afterEach(() => restore());

  /** Replaces a kernel's function by what `change` returns for it. */
  function replace(name: string, change: (kernel: tf.KernelFunc) => tf.KernelFunc): void {
    const config = tf.getKernel(name, engine);
    tf.unregisterKernel(name, engine);
    tf.registerKernel({ ...config, kernelFunc: change(config.kernelFunc) });
    restore = () => {
      tf.unregisterKernel(name, engine);
      tf.registerKernel(config);
      restore = () => {};
    };
  }

  it("agrees with PyTorch's values, and leaves no tensor behind", async () => {
    const before = tf.memory().numTensors;
    const result = await selfTest();
    expect(result).toMatchObject({ passed: true, compared: Object.keys(GOLDEN_VALUES).length });
    expect(result.error).toBeLessThan(1e-5);
    expect(tf.memory().numTensors).toBe(before);
  });

  it('finds a slightly wrong kernel, and names the quantity with the largest error', async () => {
    replace('Sigmoid', (kernel) => (params) => {
      const y = kernel(params) as tf.TensorInfo;
      return tf.mul(tf.engine().makeTensorFromTensorInfo(y), 1.001);
    });
    const { passed, worst } = await selfTest();
    expect(passed).toBe(false);
    expect(worst).toMatch(/^stage [12]: /);
  });

  it('finds a kernel that returns NaN', async () => {
    replace('Sigmoid', (kernel) => (params) => {
      const y = kernel(params) as tf.TensorInfo;
      return tf.mul(tf.engine().makeTensorFromTensorInfo(y), Number.NaN);
    });
    expect((await selfTest()).passed).toBe(false);
  });
});
