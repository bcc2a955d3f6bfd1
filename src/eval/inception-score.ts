/** Images a split has in the published evaluation. */
export const SPLIT_SIZE = 5000;

/**
 * exp(mean KL(p(y|x) ‖ p(y))) averaged over splits of `splitSize` images (the last may be smaller), as the ADM evaluator
 * does (Salimans et al., 2016). logits (N, C).
 */
export function inceptionScore(logits: Float32Array, classes: number, splitSize = SPLIT_SIZE): number {
  const count = logits.length / classes;
  const probabilities = softmax(logits, classes);
  const scores: number[] = [];
  for (let start = 0; start < count; start += splitSize) {
    const end = Math.min(start + splitSize, count);
    scores.push(splitScore(probabilities.subarray(start * classes, end * classes), classes));
  }
  return scores.reduce((a, b) => a + b, 0) / scores.length;
}

function softmax(logits: Float32Array, classes: number): Float64Array {
  const out = new Float64Array(logits.length);
  for (let start = 0; start < logits.length; start += classes) {
    let [largest, total] = [Number.NEGATIVE_INFINITY, 0];
    for (let i = start; i < start + classes; i++) largest = Math.max(largest, logits[i]);
    for (let i = start; i < start + classes; i++) total += out[i] = Math.exp(logits[i] - largest);
    for (let i = start; i < start + classes; i++) out[i] /= total;
  }
  return out;
}

function splitScore(probabilities: Float64Array, classes: number): number {
  const count = probabilities.length / classes;
  const marginal = new Float64Array(classes);
  for (let i = 0; i < probabilities.length; i++) marginal[i % classes] += probabilities[i] / count;
  let divergence = 0;
  for (let i = 0; i < probabilities.length; i++) {
    const p = probabilities[i];
    if (p > 0) divergence += p * Math.log(p / marginal[i % classes]);
  }
  return Math.exp(divergence / count);
}
