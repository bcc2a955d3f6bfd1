import * as tf from '@tensorflow/tfjs';
import { expect, it, vi } from 'vitest';
import { examine, requireSound } from '../../src/doctor/examine.js';
import { OPERATOR_CHECKS } from '../../src/doctor/operators.js';
import type * as Engines from '../../src/engine/index.js';
import type { LibtorchBackend } from '../../src/engine/libtorch/backend.js';
import type { Native } from '../../src/engine/libtorch/bridge.js';
import { pretendCuda } from '../aten/pretend-cuda.js';
import { canRun } from '../support/engines.js';

// The device `cuda` is a pretended one, and the machine's limits are not measured.
vi.mock('../../src/engine/index.js', async (original) => {
  const real = await original<typeof Engines>();
  let cpu: Native | undefined;
  const openEngine: typeof real.openEngine = async (name, options = {}) => {
    const opened = await real.openEngine(name, { ...options, device: 'cpu' });
    if (opened.name !== 'libtorch') return opened;
    const backend = tf.backend() as LibtorchBackend;
    cpu ??= backend.native;
    Object.assign(backend, { native: cpu, operators: new Map(), schemas: new Map() });
    if (options.device === 'cuda') pretendCuda();
    return opened;
  };
  return { ...real, openEngine };
});
vi.mock('../../src/bench/measure.js', () => ({
  measureLimits: async () => ({ bandwidth: 1, matrixRate: 1 }),
}));

it.skipIf(!canRun('libtorch'))(
  'doctor compares a device other than the CPU with the CPU, and only that device',
  async () => {
    const found = await examine('libtorch', { device: 'cuda' });
    expect(found.operators).toHaveLength(OPERATOR_CHECKS.length);
    expect(found.operators!.filter(({ passed }) => !passed)).toEqual([]);
    expect(() => requireSound(found)).not.toThrow();
    expect((await examine('libtorch', { device: 'cpu' })).operators).toBeUndefined();
  },
);
