import { EngineError, option } from '../errors.js';

/**
 * The device that the options of an engine choose: `cuda` is the first CUDA device, or the one for this process's rank on this
 * machine. It is the default if there is a CUDA device.
 * @param devices the number of CUDA devices
 * @param library the library in the words of an error, such as `this PyTorch`
 * @param remedy what helps if it sees no CUDA device
 * @throws EngineError if there is no such device
 */
export function chooseDevice(
  { device: wanted, localRank = 0 }: { device?: string; localRank?: number },
  devices: number,
  library: string,
  remedy: string,
): string {
  const own = `cuda:${devices > 0 ? localRank % devices : 0}`;
  const device = wanted === 'cuda' ? own : (wanted ?? (devices > 0 ? own : 'cpu'));
  const [, index] = /^cuda:(\d+)$/.exec(device) ?? [];
  if (device !== 'cpu' && index === undefined)
    throw new EngineError(`${option('device', device)} is not a device; choose cpu, cuda, or cuda:N`);
  if (index !== undefined && Number(index) >= devices)
    throw new EngineError(
      `${option('device', wanted)}: ${library} sees ${devices === 0 ? 'no CUDA device' : `${devices} CUDA devices`}; choose ${devices === 0 ? `${option('device', 'cpu')}, or ${remedy}` : `cuda:0 to cuda:${devices - 1}`}`,
    );
  return device;
}

/** The names of the CPU and a number of CUDA devices. */
export const deviceNames = (devices: number): string[] => [
  'cpu',
  ...Array.from({ length: devices }, (_, i) => `cuda:${i}`),
];
