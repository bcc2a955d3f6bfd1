import * as tf from '@tensorflow/tfjs';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import type { Native } from '../../../src/engine/tensorflow/binding.js';
import { configProto } from '../../../src/engine/tensorflow/config-proto.js';
import { type EngineError, forCommandLine } from '../../../src/errors.js';

// Tests how the engine starts on machines with and without CUDA devices, with a fake of the native module.

const { machine, calls } = vi.hoisted(() => ({
  machine: {} as {
    /** '' for a TensorFlow without CUDA. */
    cuda: string;
    /** CUDA devices of the driver, and whether TensorFlow uses the one that it is started with. */
    devices: number;
    uses: boolean;
    /** TensorFlow's message if it does not start. */
    message?: string;
    /** Whether the native module is built, and whether tfjs-node has downloaded its own. */
    built: boolean;
    downloaded?: string;
    gpu: boolean;
  },
  calls: [] as unknown[],
}));

vi.mock('../../../src/engine/tensorflow/binding.js', async (original) => ({
  ...(await original<object>()),
  loadNative: (verbose: boolean): Native | undefined => {
    calls.push(`loaded${verbose ? ' aloud' : ''} at log level ${process.env.TF_CPP_MIN_LOG_LEVEL}`);
    if (!machine.built) return undefined;
    return {
      version: '9.9.0',
      cuda: machine.cuda,
      cudaDevices: () => machine.devices,
      start: (config: Uint8Array) => {
        if (machine.message) throw new Error(machine.message);
        calls.push(Buffer.from(config).toString('hex'));
        return { devices: ['…/device:CPU:0', ...(machine.uses ? ['…/device:GPU:0'] : [])] } as never;
      },
      computeOnCpu: (on) => calls.push(`on the CPU: ${on}`),
    };
  },
  loadDownloaded: () => ({ TF_Version: '2.9.1', isUsingGpuDevice: () => machine.gpu }),
  loadBackend: () =>
    class {
      dispose() {}
    },
}));
vi.mock('../../../src/engine/tensorflow/kernels/index.js', () => ({ registerKernels() {} }));

let startTensorFlow: typeof import('../../../src/engine/tensorflow.js').startTensorFlow;
let tensorflowDevices: typeof import('../../../src/engine/tensorflow.js').tensorflowDevices;

const start = (options: Parameters<typeof startTensorFlow>[0] = {}) => {
  const found = { name: 'tfjs-node', version: '4.22.0', path: '/package', downloaded: machine.downloaded };
  const { description, threads } = startTensorFlow({ threads: 2, ...options }, found);
  const { device } = tf.engine().findBackend('tensorflow') as unknown as { device: string };
  return { description, threads, device };
};

const refusal = (options: Parameters<typeof startTensorFlow>[0]): string => {
  try {
    start(options);
  } catch (error) {
    expect((error as Error).message).not.toContain('\n');
    return forCommandLine((error as EngineError).text);
  }
  throw new Error('nothing was thrown');
};

const hex = (...[configuration]: Parameters<typeof configProto>) =>
  Buffer.from(configProto(configuration)).toString('hex');

beforeEach(async () => {
  Object.assign(machine, { cuda: '12.5', devices: 2, uses: true, message: undefined });
  Object.assign(machine, { built: true, downloaded: undefined, gpu: false });
  calls.length = 0;
  vi.stubEnv('TF_CPP_MIN_LOG_LEVEL', undefined);
  vi.resetModules(); // a process starts TensorFlow once
  if (tf.findBackendFactory('tensorflow')) tf.removeBackend('tensorflow');
  ({ startTensorFlow, tensorflowDevices } = await import('../../../src/engine/tensorflow.js'));
});

describe('with CUDA devices', () => {
  it('starts on the first, on that of its rank, or on the one that is named', () => {
    expect(start({ localRank: 3 })).toEqual({
      description: 'TensorFlow 9.9.0 (CUDA 12.5) on cuda:1, through tfjs-node 4.22.0',
      threads: 2,
      device: 'cuda:1',
    });
    expect(calls).toContain(hex({ threads: 2, device: 'cuda:1' }));
    expect(tensorflowDevices()).toEqual(['cpu', 'cuda:0', 'cuda:1']);
  });

  it('starts on the CPU if that is asked for, without touching them', () => {
    expect(start({ device: 'cpu' }).device).toBe('cpu');
    expect(calls).toContain(hex({ threads: 2, device: 'cpu' }));
    expect(refusal({ device: 'cuda' })).toBe(
      '--device cuda: this process has started TensorFlow on cpu, and cannot change its GPU; start another process',
    );
  });

  it('switches between the GPU that it was started on and the CPU, but keeps its threads and its GPU', () => {
    expect(start({ device: 'cuda:1' }).device).toBe('cuda:1');
    expect(start({ device: 'cpu', threads: 5 })).toMatchObject({ device: 'cpu', threads: 2 });
    expect(start({ device: 'cuda' }).device).toBe('cuda:1');
    expect(start().device).toBe('cuda:1');
    expect(calls.filter((call) => /CPU/.test(String(call)))).toEqual([
      'on the CPU: false',
      'on the CPU: true',
      'on the CPU: false',
      'on the CPU: false',
    ]);
    expect(refusal({ device: 'cuda:0' })).toMatch(
      /^--device cuda:0: this process has started TensorFlow on cuda:1,/,
    );
  });

  it('names those there are for one that there is not', () => {
    expect(refusal({ device: 'cuda:2' })).toBe(
      '--device cuda:2: TensorFlow 9.9.0 (CUDA 12.5) sees 2 CUDA devices; choose cuda:0 to cuda:1',
    );
    expect(refusal({ device: 'tpu' })).toMatch(/^--device tpu is not a device; choose cpu, cuda, or cuda:N$/);
  });

  it('gives TensorFlow’s own message one line', () => {
    machine.message = "'visible_device_list' listed an invalid Device id '1'\nat x.cc";
    expect(refusal({ device: 'cuda:1' })).toBe(
      "TensorFlow: --device cuda:1: 'visible_device_list' listed an invalid Device id '1'",
    );
  });
});

describe('without CUDA devices', () => {
  it('starts on the CPU, also if TensorFlow does not use the device', () => {
    machine.uses = false;
    expect(start()).toMatchObject({ device: 'cpu' });
    expect(refusal({ device: 'cuda' })).toBe(
      '--device cuda: TensorFlow 9.9.0 (CUDA 12.5) sees no CUDA device; choose --device cpu, or see with --verbose what TensorFlow says about it',
    );
  });

  it('says that TensorFlow was built without CUDA, whatever the driver reports', () => {
    Object.assign(machine, { cuda: '', uses: false });
    expect(start().description).toBe(
      'TensorFlow 9.9.0 (built without CUDA) on cpu, through tfjs-node 4.22.0',
    );
    expect(calls).toContain(hex({ threads: 2, device: 'cpu' }));
    expect(refusal({ device: 'cuda:0' })).toMatch(
      /^--device cuda:0: TensorFlow 9\.9\.0 \(built without CUDA\) sees no CUDA device; choose --device cpu, or install one with CUDA \(pip install tensorflow\[and-cuda\]\) and run "npm run build:tensorflow" again$/,
    );
    expect(tensorflowDevices()).toEqual(['cpu']);
  });
});

describe('what TensorFlow prints', () => {
  it('is silenced before it is loaded', () => {
    start();
    expect(calls[0]).toBe('loaded at log level 3');
  });

  it('is not silenced with --verbose, or against the user’s wish', () => {
    start({ verbose: true });
    expect(calls[0]).toBe('loaded aloud at log level undefined');
  });

  it('is as much as the user has asked for', () => {
    vi.stubEnv('TF_CPP_MIN_LOG_LEVEL', '1');
    start();
    expect(calls[0]).toBe('loaded at log level 1');
  });
});

describe('the TensorFlow that tfjs-node has downloaded', () => {
  beforeEach(() => {
    Object.assign(machine, { built: false, downloaded: '/package/lib/napi-v8/tfjs_binding.node' });
  });

  it('is used if ours is not built, on all processors', () => {
    const { description, device } = start();
    expect(description).toBe('TensorFlow 2.9.1 on cpu, through tfjs-node 4.22.0');
    expect(device).toBe('cpu');
    expect(start({ device: 'cpu' }).device).toBe('cpu');
  });

  it('cannot be given a device', () => {
    machine.gpu = true;
    expect(start().device).toBe('cuda');
    expect(start({ device: 'cuda' }).device).toBe('cuda');
    for (const device of ['cpu', 'cuda:1'])
      expect(refusal({ device })).toMatch(
        new RegExp(
          `^--device ${device}: .*2\\.9\\.1.* runs on cuda; choose its devices with CUDA_VISIBLE_DEVICES`,
        ),
      );
  });

  it('and ours are both missing: says what to install', () => {
    machine.downloaded = undefined;
    expect(refusal({})).toMatch(
      /^--engine tensorflow is not built: install TensorFlow \(pip install tensorflow\) and run "npm run build:tensorflow"$/,
    );
  });
});
