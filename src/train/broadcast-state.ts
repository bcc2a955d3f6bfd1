import { createHash } from 'node:crypto';
import * as tf from '@tensorflow/tfjs';
import type { Group } from '../engine/distributed/group.js';
import { TrainingError } from '../errors.js';
import type { Trainer } from './trainer.js';

/** A checksum of all parameters of a training. */
function checksum(training: Trainer): string {
  const hash = createHash('sha256');
  for (const parameters of [training.model, ...Object.values(training.trainingParts)])
    for (const { value } of parameters) hash.update(value.dataSync());
  return hash.digest('hex');
}

/**
 * Gives every process the state of rank 0: that of a fresh start or of a checkpoint, which so it alone has to read.
 * @throws TrainingError where a process then holds something else
 */
export async function broadcastState(group: Group, training: Trainer): Promise<void> {
  if (group.size === 1) return;
  const state = await group.broadcastObject(training.state);
  if (group.rank > 0) training.restore(state);
  for (const parameters of [training.model, ...Object.values(training.trainingParts)])
    for (const parameter of parameters) {
      const own = group.rank === 0 ? parameter.value.clone() : tf.zeros(parameter.shape as number[]);
      parameter.value = await group.broadcast(own);
      own.dispose();
    }
  const sums = (await group.allGatherBytes(Buffer.from(checksum(training)))).map((sum) =>
    Buffer.from(sum).toString(),
  );
  const other = sums.findIndex((sum) => sum !== sums[0]);
  if (other > 0)
    throw new TrainingError(
      `rank ${other} does not begin with the parameters of rank 0; run the same version of alitok and PyTorch everywhere`,
    );
  training.release?.();
}
