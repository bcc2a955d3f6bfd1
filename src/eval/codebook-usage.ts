export class CodebookUsage {
  private readonly counts: Float64Array;
  constructor(entries: number) {
    this.counts = new Float64Array(entries);
  }
  add(indices: ArrayLike<number>): void {
    for (let i = 0; i < indices.length; i++) this.counts[indices[i]]++;
  }
  get used(): number {
    return this.counts.filter((c) => c > 0).length / this.counts.length;
  }
  get entropy(): number {
    const total = this.counts.reduce((a, b) => a + b, 0);
    return this.counts.reduce((s, c) => (c > 0 ? s - (c / total) * Math.log2(c / total) : s), 0);
  }
}
