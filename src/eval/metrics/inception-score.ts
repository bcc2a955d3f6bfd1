import type { Reporter } from '../../job/reporter.js';
import { Random } from '../../random.js';
import type { GenerationMetric } from './metric.js';

/** Images per split in the published evaluation. */
export const SPLIT_SIZE = 5000;
/** Splits of shuffled samples differ in score by a few percent; a larger ratio means that they are sorted. */
const SORTED = 1.2;

/** One split of the images, of which only two sums are kept. */
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

  /** exp of mean Σ p·log(p / m) = (Σ Σ p·log p) / n − Σ m·log m, where m is the mean of p over the split. */
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
 * exp(mean KL(p(y|x) ‖ p(y))), averaged over splits (Salimans et al., 2016), in one pass and constant memory.
 */
export class InceptionScore {
  private images = 0;
  private readonly runs: Split[] = [];
  private readonly hands: Split[];
  private readonly dealing: Uint32Array;
  private readonly p: Float64Array;

  /** `count` is the number of images to come, or more. */
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

  /** The score over splits of `splitSize` consecutive images, the last perhaps smaller, as in ADM's evaluator. */
  get inOrder(): number {
    return mean(this.runs);
  }

  /**
   * The score over as many splits to which the images are assigned at random, so that each split has images of every
   * class: what the score would be if the images were shuffled.
   */
  get dealt(): number {
    return mean(this.hands.filter(({ score }) => !Number.isNaN(score)));
  }

  /** Writes the softmax of a row to `p` and returns Σ p·log p. */
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

/** Warns where samples are sorted by class: then splits have few classes each, and the score is low for any images. */
export function warnOfOrder(
  { inOrder, dealt }: Pick<InceptionScore, 'inOrder' | 'dealt'>,
  reporter: Pick<Reporter, 'warn'>,
): void {
  if (dealt > SORTED * inOrder)
    reporter.warn(
      `the samples are sorted by class: the inception score is ${inOrder.toFixed(1)} over splits of ${SPLIT_SIZE} in their order, but ${dealt.toFixed(1)} over random splits; published samples have the classes in turn (0, 1, …, 0, 1, …), as \`alitok sample\` writes them`,
    );
}

export interface InceptionScoreValues {
  /** The mean over splits of the samples in their order, as in ADM's evaluator. */
  inception_score: number;
}

export interface InceptionScoreSettings {
  /** Images per split of the inception score. */
  inception_split: number;
}

export const inceptionScore: GenerationMetric<InceptionScoreValues> = {
  name: 'inception score',
  needs: { samples: ['logits'], reference: [] },
  settings: { inception_split: SPLIT_SIZE },
  start({ samples, dimensions, reporter }) {
    const score = new InceptionScore(dimensions.logits, samples);
    return {
      add: ({ logits }) => score.add(logits),
      result() {
        warnOfOrder(score, reporter);
        return { inception_score: score.inOrder };
      },
    };
  },
};
