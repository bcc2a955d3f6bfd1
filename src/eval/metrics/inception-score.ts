import { Random } from '../../random.js';

/** Images a split has in the published evaluation. */
export const SPLIT_SIZE = 5000;

/** Of the images of one split, only their shares in two sums. */
class Split {
  private count = 0;
  /** (C): Σ p */
  private readonly sum: Float64Array;
  /** Σ p·log p */
  private negativeEntropy = 0;

  constructor(classes: number) {
    this.sum = new Float64Array(classes);
  }

  add(p: Float64Array, negativeEntropy: number): void {
    for (let c = 0; c < p.length; c++) this.sum[c] += p[c];
    this.negativeEntropy += negativeEntropy;
    this.count++;
  }

  /** mean Σ p·log(p / m) = (Σ Σ p·log p) / n − Σ m·log m, with the split's mean m of p */
  get score(): number {
    let marginal = 0;
    for (const sum of this.sum) {
      const m = sum / this.count;
      if (m > 0) marginal += m * Math.log(m);
    }
    return Math.exp(this.negativeEntropy / this.count - marginal);
  }
}

/**
 * exp(mean KL(p(y|x) ‖ p(y))) averaged over splits (Salimans et al., 2016), in one pass and constant memory.
 */
export class InceptionScore {
  private images = 0;
  private readonly runs: Split[] = [];
  private readonly hands: Split[];
  private readonly dealing: Uint32Array;
  private readonly p: Float64Array;

  /** `count`: how many images there will be. */
  constructor(
    private readonly classes: number,
    count: number,
    private readonly splitSize = SPLIT_SIZE,
  ) {
    this.p = new Float64Array(classes);
    this.hands = Array.from({ length: Math.ceil(count / splitSize) }, () => new Split(classes));
    this.dealing = Random.of(0, 'splits').permutation(count);
  }

  /** Adds rows of logits (n, C), row-major. */
  add(logits: Float32Array): void {
    for (let start = 0; start < logits.length; start += this.classes) {
      const negativeEntropy = this.softmax(logits.subarray(start, start + this.classes));
      if (this.images % this.splitSize === 0) this.runs.push(new Split(this.classes));
      this.runs[this.runs.length - 1].add(this.p, negativeEntropy);
      this.hands[this.dealing[this.images] % this.hands.length].add(this.p, negativeEntropy);
      this.images++;
    }
  }

  /** Of splits of `splitSize` images in their order, the last perhaps smaller: what the ADM evaluator computes. */
  get inOrder(): number {
    return mean(this.runs);
  }

  /**
   * Of as many splits, to which the images are dealt out at random, so that each has some of every class in whatever order
   * they are: what the score would be if they were not sorted.
   */
  get dealt(): number {
    return mean(this.hands.filter(({ score }) => !Number.isNaN(score)));
  }

  /** Puts softmax of a row into `p`, and gives Σ p·log p. */
  private softmax(logits: Float32Array): number {
    let largest = Number.NEGATIVE_INFINITY;
    for (const logit of logits) largest = Math.max(largest, logit);
    let total = 0;
    for (const logit of logits) total += Math.exp(logit - largest);
    const logTotal = Math.log(total);
    let negativeEntropy = 0;
    for (let c = 0; c < logits.length; c++) {
      const log = logits[c] - largest - logTotal;
      this.p[c] = Math.exp(log);
      if (this.p[c] > 0) negativeEntropy += this.p[c] * log;
    }
    return negativeEntropy;
  }
}

const mean = (splits: readonly Split[]) =>
  splits.reduce((sum, split) => sum + split.score, 0) / splits.length;
