import { readFully } from './bytes.js';
import { openPytorch, startsAsPytorch } from './pytorch/file.js';
import { openSafetensors } from './safetensors.js';
import { openRegularFile, type TensorFile } from './tensor-file.js';

/**
 * Opens a file of tensors, safetensors or PyTorch's, by what it begins with; its name does not matter.
 * @throws CheckpointError where it is missing or not sound
 */
export async function openTensorFile(path: string): Promise<TensorFile> {
  const { handle, size } = await openRegularFile(path);
  const start = Buffer.alloc(Math.min(size, 9));
  try {
    await readFully(handle, start, 0);
  } finally {
    await handle.close();
  }
  return startsAsPytorch(start) ? openPytorch(path) : openSafetensors(path);
}
