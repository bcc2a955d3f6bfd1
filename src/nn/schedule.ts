/** Factor of the learning rate at `step` (from 0): a linear warm-up over `warmupSteps`, then 1. */
export function warmup(step: number, warmupSteps: number): number {
  return step < warmupSteps ? (step + 1) / warmupSteps : 1;
}

/** From `start` at step 0 to `end` at step `steps` along a straight line. */
export function linearDecay(step: number, steps: number, start: number, end: number): number {
  return start + (end - start) * Math.min(step / steps, 1);
}

/** From `start` at step 0 to `end` at step `steps` along half a cosine. */
export function cosineDecay(step: number, steps: number, start: number, end: number): number {
  return end + (start - end) * 0.5 * (1 + Math.cos(Math.PI * Math.min(step / steps, 1)));
}
