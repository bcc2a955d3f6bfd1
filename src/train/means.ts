import type { Metrics } from '../run/metrics.js';

/** Numbers as text: JSON has neither infinities nor NaN. */
export type MeansState = [name: string, sum: string, count: number][];

/** Means of the numbers of several steps. */
export class Means {
  private sums = new Map<string, { sum: number; count: number }>();

  add(metrics: Metrics): void {
    for (const [name, value] of Object.entries(metrics)) {
      const entry = this.sums.get(name) ?? { sum: 0, count: 0 };
      this.sums.set(name, { sum: entry.sum + value, count: entry.count + 1 });
    }
  }

  take(): Metrics {
    const means = [...this.sums].map(([name, { sum, count }]) => [name, sum / count]);
    this.sums.clear();
    return Object.fromEntries(means);
  }

  get state(): MeansState {
    return [...this.sums].map(([name, { sum, count }]) => [name, String(sum), count]);
  }

  restore(state: MeansState): void {
    this.sums = new Map(state.map(([name, sum, count]) => [name, { sum: Number(sum), count }]));
  }
}
