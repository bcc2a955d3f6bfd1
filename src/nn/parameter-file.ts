import { writeSafetensors } from '../formats/safetensors.js';
import type { Parameter } from './parameters.js';

/** Writes parameters as float32, one tensor in memory at a time. Throws OutputError. */
export async function saveParameters(
  path: string,
  parameters: Iterable<Parameter>,
  metadata: Record<string, string> = {},
): Promise<void> {
  const tensors = Array.from(parameters, (p) => ({
    name: p.name,
    dtype: 'F32' as const,
    shape: p.shape,
    data: async () => (await p.value.data()) as Float32Array,
  }));
  await writeSafetensors(path, tensors, metadata);
}
