/** Counts how often each code is chosen. */
export class CodebookUsage {
  readonly counts: Float64Array;

  constructor(entries: number) {
    this.counts = new Float64Array(entries);
  }

  add(indices: ArrayLike<number>): void {
    for (let i = 0; i < indices.length; i++) this.counts[indices[i]] += 1;
  }

  /** The counts, for a checkpoint. */
  get state(): number[] {
    return [...this.counts];
  }

  set state(counts: readonly number[]) {
    this.counts.set(counts);
  }

  /** Share of the codes that were chosen at least once. */
  get used(): number {
    return this.counts.reduce((used, count) => used + (count > 0 ? 1 : 0), 0) / this.counts.length;
  }

  /** Entropy of the choices in bits; log2 of the number of codes if all are equally frequent. */
  get entropy(): number {
    const total = this.counts.reduce((a, b) => a + b, 0);
    return this.counts.reduce(
      (sum, count) => (count > 0 ? sum - (count / total) * Math.log2(count / total) : sum),
      0,
    );
  }
}
