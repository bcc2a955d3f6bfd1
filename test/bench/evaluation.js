// Times what the evaluation computes from features, at the size of the published one: statistics of 50,000 samples, the
// Fréchet distance, KID, precision and recall against 10,000 references. Features are synthetic. Prints peak memory too.
//   node test/bench/evaluation.js [--engine libtorch] [--samples 50000] [--references 10000] [--dimensions 2048]
import { parseArgs } from 'node:util';
import { openEngine } from '../../dist/engine/index.js';
import { frechetDistance } from '../../dist/eval/metrics/frechet.js';
import { kernelInceptionDistance } from '../../dist/eval/metrics/kid.js';
import { precisionRecall } from '../../dist/eval/metrics/precision-recall.js';
import { FeatureStatistics } from '../../dist/eval/metrics/statistics.js';

const { values } = parseArgs({
  options: {
    engine: { type: 'string', default: 'libtorch' },
    samples: { type: 'string', default: '50000' },
    references: { type: 'string', default: '10000' },
    dimensions: { type: 'string', default: '2048' },
  },
});
const [samples, references, d] = [values.samples, values.references, values.dimensions].map(Number);
const BATCH = 64;

/** Rows like pooled features: nonnegative, mostly small, and correlated. */
function features(count, seed, scale) {
  const rows = new Float32Array(count * d);
  let state = seed;
  const uniform = () => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return (state >>> 8) / 2 ** 24;
  };
  for (let r = 0; r < count; r++) {
    const common = uniform();
    for (let i = 0; i < d; i++) rows[r * d + i] = scale * (uniform() ** 2 + (0.3 * common * (i % 7)) / 7);
  }
  return rows;
}

const report = (what, result) => console.log(`${what.padEnd(52)} ${result}`);

async function timed(what, work) {
  const began = performance.now();
  const result = await work();
  report(what, `${((performance.now() - began) / 1000).toFixed(1)} s`);
  return result;
}

function statistics(rows) {
  const all = new FeatureStatistics(d);
  for (let at = 0; at < rows.length; at += BATCH * d) all.add(rows.subarray(at, at + BATCH * d));
  return all.gaussian;
}

const { description } = await openEngine(values.engine);
report('engine', description);
const [own, reference] = [features(samples, 1, 1), features(references, 2, 1.001)];
const a = await timed(`statistics of ${samples} × ${d} features`, () => statistics(own));
const b = statistics(reference);
const fid = await timed(`Fréchet distance of ${d} features`, () => frechetDistance(b, a));
report('  is', fid.toPrecision(10));
const { kid, kid_std } = await timed(`KID of ${samples} × ${references} features`, () =>
  kernelInceptionDistance(reference, own, d),
);
report('  is', `${kid} ± ${kid_std}`);
const { precision, recall } = await timed(`precision and recall of ${samples} × ${references} features`, () =>
  precisionRecall(reference, own, d),
);
report('  are', `${precision} and ${recall}`);
report('peak memory', `${(process.resourceUsage().maxRSS / 2 ** 20).toFixed(2)} GiB`);
