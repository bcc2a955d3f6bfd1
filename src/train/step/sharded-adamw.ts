import * as tf from '@tensorflow/tfjs';
import { ALONE, type Group } from '../../engine/distributed/group.js';
import { AdamW, type AdamWOptions } from '../../nn/adamw.js';
import type { Gradient } from '../../nn/gradients.js';
import type { Parameter, Parameters } from '../../nn/parameters.js';

/** The rank that owns each parameter, with about equal sizes: the largest parameters first, to the rank with the smallest load. */
function divideAmong(parameters: readonly Parameter[], size: number): number[] {
  const owners: number[] = [];
  const loads = new Array(size).fill(0);
  const order = [...parameters.keys()].sort((a, b) => parameters[b].size - parameters[a].size || a - b);
  for (const index of order) {
    const rank = loads.indexOf(Math.min(...loads));
    owners[index] = rank;
    loads[rank] += parameters[index].size;
  }
  return owners;
}

/**
 * AdamW for several processes. With `sharded`, each process has the moments of its part of the parameters only, updates
 * these parameters and broadcasts them (ZeRO stage 1; Rajbhandari et al., 2020).
 */
export class GroupAdamW {
  private readonly owners?: number[];
  private readonly optimizer: AdamW;

  constructor(
    private readonly parameters: readonly Parameter[],
    options: AdamWOptions,
    private readonly group: Group = ALONE,
    sharded = false,
  ) {
    const owners = sharded && group.size > 1 ? divideAmong(parameters, group.size) : undefined;
    this.owners = owners;
    this.optimizer = new AdamW(parameters, { ...options, owns: owners && ((i) => owners[i] === group.rank) });
  }

  /** Steps done. */
  get steps(): number {
    return this.optimizer.steps;
  }

  set steps(steps: number) {
    this.optimizer.steps = steps;
  }

  /** The moments that this process owns; on rank 0, between `gather` and `release`, all of them. */
  get state(): Parameters {
    return this.optimizer.state;
  }

  initialize(): void {
    this.optimizer.initialize();
  }

  /** `AdamW.update`, after which all processes have all parameters. */
  async update(gradients: readonly Gradient[], lr: number, gradientScale = 1): Promise<void> {
    this.optimizer.update(gradients, lr, gradientScale);
    const { owners, group } = this;
    if (!owners) return;
    for (let rank = 0; rank < group.size; rank++) {
      const part = this.parameters.filter((_, i) => owners[i] === rank);
      if (part.length === 0) continue;
      const flat = tf.tidy(() => tf.concat(part.map((p) => p.value.flatten())));
      const updated = await group.broadcast(flat, rank);
      flat.dispose();
      if (rank !== group.rank) {
        const values = tf.tidy(() =>
          tf.split(
            updated,
            part.map((p) => p.size),
          ),
        );
        for (const [i, p] of part.entries()) {
          p.value = values[i].reshape(p.shape as number[]);
          values[i].dispose();
        }
      }
      updated.dispose();
    }
  }

  /** Gives rank 0 the moments of all processes, for a checkpoint. */
  async gather(): Promise<void> {
    if (!this.owners) return;
    for (const [moment, owner] of this.momentsWithOwners()) {
      const own = owner === this.group.rank ? moment.value.clone() : tf.zeros(moment.shape as number[]);
      const whole = await this.group.broadcast(own, owner);
      own.dispose();
      if (this.group.rank === 0) moment.value = whole;
      else whole.dispose();
    }
  }

  /** Frees the moments that other processes own. */
  release(): void {
    if (!this.owners) return;
    for (const [moment, owner] of this.momentsWithOwners()) if (owner !== this.group.rank) moment.dispose();
  }

  private *momentsWithOwners(): Generator<[Parameter, number]> {
    for (const [i, p] of this.parameters.entries())
      for (const kind of ['m', 'v']) yield [this.state.get(`${kind}.${p.name}`)!, this.owners![i]];
  }
}
