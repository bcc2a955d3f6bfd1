import type { Config } from '../config/schema.js';
import { ConfigError } from '../errors.js';
import type { Stage } from '../models/geometry.js';

function refuse(key: string, value: number, problem: string): never {
  throw new ConfigError(`${key} is ${value}, ${problem}`);
}

/**
 * Refuses phases that cannot go as they say.
 * @throws ConfigError where the warm-up outlasts them all, so that no phase has its learning rate; where early_stop waits
 *   longer than its phase; where an adversarial phase has no step for the discriminator
 */
export function checkPhases({ tokenizer_training }: Config, stage: Stage): void {
  const { phases } = tokenizer_training[`stage${stage}`];
  const { warmup_steps } = tokenizer_training;
  const total = phases.reduce((sum, { steps }) => sum + steps, 0);
  if (warmup_steps > total)
    refuse(
      'tokenizer_training.warmup_steps',
      warmup_steps,
      `but all phases of stage ${stage} are ${total} steps: their learning rates are never reached; set it lower, or give the phases more steps`,
    );
  phases.forEach(({ steps, early_stop, adversarial }, i) => {
    const key = `tokenizer_training.stage${stage}.phases.${i}`;
    if (early_stop && early_stop.patience_steps >= steps)
      refuse(
        `${key}.early_stop.patience_steps`,
        early_stop.patience_steps,
        `which can never end a phase of ${steps} steps early; set it lower, or early_stop to null`,
      );
    if (adversarial && steps < 2)
      refuse(
        `${key}.steps`,
        steps,
        'but an adversarial phase gives every second step to the discriminator; it needs 2 at least',
      );
  });
}

/** Refuses a warm-up that leaves the generator's learning rate no step to fall. Throws ConfigError. */
export function checkGeneratorSchedule({ generator_training }: Config): void {
  const { steps, warmup_steps } = generator_training;
  if (warmup_steps >= steps)
    refuse(
      'generator_training.warmup_steps',
      warmup_steps,
      `but the training is ${steps} steps: the learning rate would never fall to lr_end; set it lower, or steps higher`,
    );
}
