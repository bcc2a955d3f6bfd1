import { expect, test } from 'vitest';
import { cosineDecay, linearDecay, warmup } from '../../src/nn/schedule.js';
import { type Phase, PhaseSchedule } from '../../src/train/tokenizer/phases.js';

const phase = (values: Partial<Phase>): Phase => ({
  steps: 4,
  lr: 1,
  lr_end: 1,
  w_lpips: 0,
  w_perc: 0,
  adversarial: false,
  early_stop: null,
  ...values,
});

test('warm-up ends at one after its last step', () => {
  expect([0, 1, 3, 4, 100].map((step) => warmup(step, 4))).toEqual([0.25, 0.5, 1, 1, 1]);
  expect(warmup(0, 0)).toBe(1);
});

test('decays go from start to end and stay there', () => {
  expect([0, 5, 10, 20].map((step) => linearDecay(step, 10, 2, 1))).toEqual([2, 1.5, 1, 1]);
  expect(cosineDecay(0, 10, 2, 1)).toBe(2);
  expect(cosineDecay(5, 10, 2, 1)).toBeCloseTo(1.5, 12);
  expect(cosineDecay(2.5, 10, 2, 0)).toBeCloseTo(1 + Math.SQRT1_2, 12);
  expect(cosineDecay(99, 10, 2, 1)).toBe(1);
});

test('phases follow each other, each with its learning rate', () => {
  const schedule = new PhaseSchedule([
    phase({ steps: 2, lr: 4, lr_end: 2 }),
    phase({ steps: 1, lr: 1, adversarial: true }),
  ]);
  expect(schedule.totalSteps).toBe(3);
  const seen: [number, number][] = [];
  while (!schedule.finished) {
    seen.push([schedule.phase, schedule.lr]);
    schedule.advance(1);
  }
  expect(seen).toEqual([
    [0, 4],
    [0, 3],
    [1, 1],
  ]);
});

test('a converged loss ends a phase early, a falling one does not', () => {
  const early_stop = { patience_steps: 10, min_delta: 0.01 };
  const stepsUntilEnd = (loss: (step: number) => number) => {
    const schedule = new PhaseSchedule([phase({ steps: 500, early_stop })]);
    let step = 0;
    while (!schedule.finished) schedule.advance(loss(step++));
    return step;
  };
  expect(stepsUntilEnd(() => 1)).toBe(11);
  expect(stepsUntilEnd((step) => 100 - step / 10)).toBe(500);
});

test('a schedule continues from its saved state', () => {
  const phases = [phase({ steps: 50, early_stop: { patience_steps: 9, min_delta: 0.1 } }), phase({})];
  const run = (schedule: PhaseSchedule, from: number) => {
    const seen: string[] = [];
    for (let step = from; !schedule.finished; step++) {
      seen.push(`${schedule.phase}.${schedule.step}`);
      schedule.advance(step < 12 ? 10 - step : undefined);
    }
    return seen;
  };
  const whole = run(new PhaseSchedule(phases), 0);
  const first = new PhaseSchedule(phases);
  for (let step = 0; step < 15; step++) first.advance(step < 12 ? 10 - step : undefined);
  const second = new PhaseSchedule(phases);
  second.restore(JSON.parse(JSON.stringify(first.state)));
  expect(run(second, 15)).toEqual(whole.slice(15));
  expect(whole.at(-1)).toBe('1.3');
});
