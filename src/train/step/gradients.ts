import * as tf from '@tensorflow/tfjs';
import { Buckets } from '../../engine/distributed/buckets.js';
import { ALONE, type Group } from '../../engine/distributed/group.js';
import { accumulate, differentiate, type Gradient, type LossAndMore } from '../../nn/gradients.js';
import type { Parameter } from '../../nn/parameters.js';
import type { Metrics } from '../../run/metrics.js';

export interface SumOptions {
  /** The processes that share the batch. */
  group?: Group;
  /** Called with the results of each micro-batch before they are freed. */
  onResult?: (result: LossAndMore) => void;
}

/**
 * Gradients of `loss(part)` summed over `parts` micro-batches of equal size and over all processes, and the means of its
 * scalars. The all-reduce of several processes overlaps with the last micro-batch's backward pass. All micro-batches must
 * have the same terms.
 */
export async function sumGradients(
  trained: readonly Parameter[],
  parts: number,
  loss: (part: number) => LossAndMore,
  { group = ALONE, onResult = () => {} }: SumOptions = {},
): Promise<{ gradients: Gradient[]; metrics: Metrics }> {
  const metrics: Metrics = {};
  let gradients: Gradient[] | undefined;
  let names: string[] = [];
  const scalars: tf.Tensor[] = [];
  const buckets = group.size > 1 ? new Buckets(group) : undefined;
  try {
    for (let part = 0; part < parts; part++) {
      tf.tidy(() => {
        const before = gradients;
        const send = (i: number, gradient: tf.Tensor) =>
          buckets!.add(i, before?.[i]?.add(gradient) ?? gradient.clone());
        const last = buckets !== undefined && part === parts - 1;
        const { result, gradients: next } = differentiate(trained, () => loss(part), last ? send : undefined);
        if (last) buckets.flush();
        else gradients = accumulate(gradients, next);
        onResult(result);
        names = Object.keys(result).filter((name) => result[name].rank === 0);
        scalars.push(tf.keep(tf.stack(names.map((name) => result[name].toFloat()))));
      });
    }
  } catch (error) {
    tf.dispose([gradients, scalars]);
    throw error;
  }
  // Reading them makes the host wait for the device, so it comes last.
  let means = tf.tidy(() => tf.mean(tf.stack(scalars), 0));
  tf.dispose(scalars);
  if (buckets) {
    tf.dispose(gradients ?? []);
    const sum = group.allReduce([means]);
    gradients = await buckets.finish();
    const [all] = await sum();
    means.dispose();
    means = tf.tidy(() => all.div(group.size));
    all.dispose();
  }
  const values = means.dataSync();
  means.dispose();
  names.forEach((name, i) => {
    metrics[name] = values[i];
  });
  return { gradients: gradients!, metrics };
}
