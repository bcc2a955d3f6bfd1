import { CheckpointError } from '../errors.js';
import { readFully } from '../files/bytes.js';
import { openGraphDef, startsAsGraph } from '../formats/graph-def.js';
import { openPytorch, startsAsPytorch } from '../formats/pytorch/file.js';
import { openSafetensors } from '../formats/safetensors.js';
import { openRegularFile, parseWeightsPath, type TensorFile } from '../formats/tensor-file.js';

/**
 * Opens a file of tensors: safetensors, a PyTorch file or a TensorFlow graph, recognised by its first bytes, not its name.
 * `FILE#KEY` takes the weights that a PyTorch training file holds under a key.
 * @throws CheckpointError if it is missing or damaged, or has no such key
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
