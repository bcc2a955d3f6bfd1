import { openTensorFile } from '../../src/checkpoint/open.js';
import { writePytorch } from '../../src/formats/pytorch/write.js';
import { writeSafetensors } from '../../src/formats/safetensors.js';

/** Copies the tensors of a model file, with other metadata or none, to a PyTorch file or to safetensors, as its name says. */
export async function copyTensors(
  source: string,
  target: string,
  metadata: Record<string, string> = {},
): Promise<void> {
  const file = await openTensorFile(source);
  const tensors = [...file.tensors].map(([name, info]) => ({ name, ...info, data: () => file.read(name) }));
  await (target.endsWith('.pth') ? writePytorch : writeSafetensors)(target, tensors, metadata);
  await file.close();
}
