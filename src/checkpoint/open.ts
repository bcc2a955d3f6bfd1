import { CheckpointError } from '../errors.js';
import { readFully } from '../files/bytes.js';
import { openGraphDef, startsAsGraph } from '../formats/graph-def.js';
import { openPytorch, startsAsPytorch } from '../formats/pytorch/file.js';
import { openSafetensors } from '../formats/safetensors.js';
import { openRegularFile, parseWeightsPath, type TensorFile } from '../formats/tensor-file.js';

/**
 * Opens a file of tensors, safetensors, PyTorch's or a graph of TensorFlow's, by what it begins with; its name does not matter.
 * `FILE#KEY` takes the weights that a training file of PyTorch holds under a key.
 * @throws CheckpointError where it is missing or not sound, or has no such key
 */
export async function openTensorFile(name: string): Promise<TensorFile> {
  const { file: path, key } = parseWeightsPath(name);
  const { handle, size } = await openRegularFile(path);
  const start = Buffer.alloc(Math.min(size, 9));
  try {
    await readFully(handle, start, 0);
  } finally {
    await handle.close();
  }
  if (startsAsPytorch(start)) return openPytorch(path, key);
  if (key !== undefined)
    throw new CheckpointError(
      `${path} is no training file of PyTorch, and has one set of weights; leave out #${key}`,
    );
  return startsAsGraph(start) ? openGraphDef(path) : openSafetensors(path);
}
