/** Images a split has in the published evaluation. */
export const SPLIT_SIZE = 5000;

/**
 * exp(mean KL(p(y|x) ‖ p(y))) averaged over splits of `splitSize` images in their order (the last may be smaller), as
 * the ADM evaluator does (Salimans et al., 2016). Of each image only its share in two sums is kept.
 */
export class InceptionScore {
  /** (C): Σ p over the split's images so far */
  private readonly sum: Float64Array;
  private count = 0;
  /** Σ p·log p */
  private negativeEntropy = 0;
  private readonly scores: number[] = [];

  constructor(
    private readonly classes: number,
    private readonly splitSize = SPLIT_SIZE,
  ) {
    this.sum = new Float64Array(classes);
  }

  /** Adds rows of logits (n, C), row-major. */
  add(logits: Float32Array): void {
    for (let start = 0; start < logits.length; start += this.classes) {
      this.addRow(logits.subarray(start, start + this.classes));
      if (this.count < this.splitSize) continue;
      this.scores.push(this.splitScore());
      this.sum.fill(0);
      [this.count, this.negativeEntropy] = [0, 0];
    }
  }

  /** The score of all rows so far. */
  get value(): number {
    const scores = this.count > 0 ? [...this.scores, this.splitScore()] : this.scores;
    return scores.reduce((a, b) => a + b, 0) / scores.length;
  }

  private addRow(logits: Float32Array): void {
    const largest = logits.reduce((a, b) => Math.max(a, b));
    const total = logits.reduce((sum, logit) => sum + Math.exp(logit - largest), 0);
    const logTotal = Math.log(total);
    for (let c = 0; c < logits.length; c++) {
      const log = logits[c] - largest - logTotal;
      const p = Math.exp(log);
      this.sum[c] += p;
      if (p > 0) this.negativeEntropy += p * log;
    }
    this.count++;
  }

  /** mean Σ p·log(p / m) = (Σ Σ p·log p) / n − Σ m·log m, with the split's mean m of p */
  private splitScore(): number {
    let marginal = 0;
    for (const sum of this.sum) {
      const m = sum / this.count;
      if (m > 0) marginal += m * Math.log(m);
    }
    return Math.exp(this.negativeEntropy / this.count - marginal);
  }
}
