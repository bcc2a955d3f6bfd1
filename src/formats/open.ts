import { readFully } from './bytes.js';
import { openGraphDef, startsAsGraph } from './graph-def.js';
import { openPytorch, startsAsPytorch } from './pytorch/file.js';
import { openSafetensors } from './safetensors.js';
import { openRegularFile, type TensorFile } from './tensor-file.js';

/**
 * Opens a file of tensors, safetensors, PyTorch's or a graph of TensorFlow's, by what it begins with; its name does not matter.
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
  if (startsAsGraph(start)) return openGraphDef(path);
  return startsAsPytorch(start) ? openPytorch(path) : openSafetensors(path);
}
