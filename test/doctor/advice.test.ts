import { expect, it } from 'vitest';
import { adviceFor } from '../../src/doctor/examine.js';

const GIB = 2 ** 30;
const sound = {
  machine: {
    processor: 'P',
    processors: 4,
    installed: 4,
    memory: 16 * GIB,
    freeMemory: 12 * GIB,
    freeDisk: 100 * GIB,
    load: 0.5,
  },
  engines: [{ name: 'libtorch', description: 'PyTorch' } as const],
  chosen: { name: 'libtorch', description: 'PyTorch', threads: 4 } as const,
  selfTest: { passed: true, worst: 'z', error: 0, compared: 1 },
};
const withMachine = (machine: Partial<(typeof sound)['machine']>) => ({
  ...sound,
  machine: { ...sound.machine, ...machine },
});

it('gives no advice for a healthy machine', () => {
  expect(adviceFor(sound, {})).toEqual([]);
  expect(adviceFor(sound, { OMP_NUM_THREADS: '4' })).toEqual([]);
});

it.each([
  [
    { ...sound, selfTest: { ...sound.selfTest, passed: false } },
    /computes wrong results.*use another --engine/,
  ],
  [
    {
      ...sound,
      engines: [{ name: 'libtorch', problem: 'it is not built: install it' } as const],
      chosen: { name: 'wasm', description: '', threads: 4 } as const,
    },
    /libtorch would be the fastest engine: it is not built: install it/,
  ],
  [withMachine({ processors: 2 }), /2 of 4 processors/],
  [withMachine({ load: 9 }), /load 9\.0 on 4 processors.*measure again/],
  [withMachine({ memory: 2 * GIB }), /2\.0 GiB of memory is little.*--dry-run/],
  [withMachine({ freeMemory: GIB / 2 }), /only 512\.0 MiB of memory is free/],
  [withMachine({ freeDisk: GIB }), /only 1\.0 GiB are free/],
])('each problem has a remedy (%#)', (found, advice) => {
  expect(adviceFor(found, {})).toEqual([expect.stringMatching(advice)]);
});

it('detects environment variables that leave processors unused', () => {
  expect(adviceFor(sound, { OMP_NUM_THREADS: '1' })).toEqual([
    expect.stringMatching(/OMP_NUM_THREADS=1 .*unset it/),
  ]);
});
