import * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, it } from 'vitest';
import { openEngine } from '../../src/engine/index.js';
import type { LibtorchBackend } from '../../src/engine/libtorch/backend.js';
import { loadNative } from '../../src/engine/libtorch/bridge.js';
import { countCalls, profileKernels, watchMemory } from '../../src/engine/measurements.js';
import { pretendCuda } from '../aten/pretend-cuda.js';
import { canRun } from '../support/engines.js';

const MIB = 2 ** 20;

describe.skipIf(!canRun('libtorch'))('measurements of a run', () => {
  beforeAll(() => openEngine('libtorch', { device: 'cpu' }));
  const told = canRun('libtorch') && loadNative().find('alitok::profile_begin', '') !== null;

  it.runIf(told)('list kernels by name, count and time', async () => {
    const backend = tf.backend() as LibtorchBackend;
    const x = tf.fill([100], 1);
    // CPU operators, since there is no device here; `profileKernels` requests those of CUDA in the same way.
    backend.call('alitok::profile_begin', false);
    for (let i = 0; i < 5; i++) x.add(x).dispose();
    const noted = backend.call('alitok::profile_end', false) as number;
    const text = new TextDecoder().decode(backend.native.read(noted) as Uint8Array);
    const [, count, nanoseconds] = /^aten::add\t(\d+)\t(\d+)$/m.exec(text)!;
    expect(Number(count)).toBe(5);
    expect(Number(nanoseconds)).toBeGreaterThan(0);
  });

  it.runIf(process.platform === 'linux')(
    'give the peak memory since they started, not since the program started',
    () => {
      const large = watchMemory();
      tf.fill([64 * MIB], 1).dispose(); // 256 MiB
      const most = large();
      const small = watchMemory();
      tf.fill([MIB], 1).dispose();
      expect(most - small()).toBeGreaterThan(200 * MIB);
    },
  );

  it('are undefined where they are not available', async () => {
    expect(await profileKernels(async () => {})).toBeUndefined();
    pretendCuda();
    expect(await profileKernels(async () => {})).toBeUndefined();
    expect(watchMemory()()).toBeGreaterThan(0);
  });
});

describe.each(['libtorch', 'tensorflow'] as const)('calls on %s', (engine) => {
  it.runIf(canRun(engine))('are counted, those of tfjs and those of the library', async () => {
    await openEngine(engine, { device: 'cpu' });
    const x = tf.fill([100], 1);
    const run = async () => tf.dispose([x.add(x), x.square()]);
    expect(await countCalls(run)).toEqual({ kernels: 2, library: 2 });
    expect(await countCalls(async () => {})).toEqual({ kernels: 0, library: 0 });
  });
});
