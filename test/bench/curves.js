// Compares a complete small training run on a device with the same run on the CPU in float32: tokenizer stage 1 with its
// discriminator, stage 2, codes, generator, sampled codes. Each stage is also resumed from its state halfway. It checks
// whether the loss curves agree. Images are computed from a formula, so no files and no image library are needed.
//   node test/bench/curves.js [--device cuda] [--precision bf16] [--tf32] [--steps 60]
import { parseArgs } from 'node:util';
import * as tf from '@tensorflow/tfjs';
import { parseConfig } from '../../dist/config/schema.js';
import { uniformNumbers } from '../../dist/doctor/formula.js';
import { openEngine } from '../../dist/engine/index.js';
import { tokenizerGeometry } from '../../dist/models/geometry.js';
import { toTensor } from '../../dist/models/pixels.js';
import { Random } from '../../dist/random.js';
import { sampleCodes, sampleOptions } from '../../dist/sample/sampler.js';
import { GeneratorTrainer } from '../../dist/train/generator/trainer.js';
import { TokenizerTrainer } from '../../dist/train/tokenizer/trainer.js';

const { values: options } = parseArgs({
  options: {
    device: { type: 'string' },
    precision: { type: 'string', default: 'float32' },
    tf32: { type: 'boolean', default: false },
    steps: { type: 'string', default: '60' },
  },
});
const steps = Number(options.steps);
const half = Math.floor(steps / 2);
const { precision, tf32 } = options;
const rounded = precision === 'bf16' || tf32;

const warmup_steps = Math.min(5, half);

/** Number of steps in the moving average of a curve. */
const WINDOW = Math.max(1, Math.min(8, half));
/**
 * Largest difference between smoothed curves. Training amplifies small differences: in float32, another number of threads,
 * which changes the order of sums, puts them 0.8 % apart after 60 steps, and bfloat16 1.1 %.
 */
const APART = rounded ? 0.06 : 0.03;
/** Share of codes that must agree for the same weights: codebook entries at almost equal distances swap through rounding. */
const SAME_CODES = rounded ? 0.9 : 0.99;
/** Models this small only get slower with more threads. */
const threads = 1;

const TRANSFORMER = { width: 64, layers: 2, heads: 4 };
const phase = (count, more) => ({ steps: count, lr: 2e-3, w_lpips: 0, w_perc: 0, ...more });
const config = parseConfig(
  {
    seed: 3,
    tokenizer: {
      ...{ image_size: 32, patch_size: 8, codebook_size: 64, token_size: 8 },
      encoder: TRANSFORMER,
      decoder: { ...TRANSFORMER, class_tokens: 4 },
    },
    discriminator: { hidden_channels: 32, stages: 1 },
    tokenizer_training: {
      ...{ batch_size: 8, warmup_steps, init_std: 0.08, colour_init: 'identity', clip_norm: 1 },
      stage1: { phases: [phase(half), phase(steps - half, { lr: 1e-3, adversarial: true })] },
      stage2: { phases: [phase(steps)] },
    },
    generator: { width: 96, layers: 2, heads: 2, classes: 4 },
    generator_training: { steps, batch_size: 16, accumulation: 2, lr: 2e-3, warmup_steps },
    sample: { guidance_scale: 2, temperature: 0 },
  },
  'curves',
);
const { image_size: size, codebook_size } = config.tokenizer;
const geometry = tokenizerGeometry(config.tokenizer);
const CLASSES = config.generator.classes;
const PICTURES = 48;

/** Picture i, (size, size, 3) bytes: a disc or a square, red or blue, on grey. */
function picture(i) {
  const [x, y, radius, light] = uniformNumbers(4, i);
  const middle = [x, y].map((u) => size * (0.5 + 0.15 * u));
  const reach = size * (0.25 + 0.08 * radius);
  const [square, blue] = [i % 2 === 1, i % CLASSES > 1];
  const colour = blue ? [40, 70, 220] : [220, 60, 40];
  const pixels = new Uint8Array(size * size * 3);
  for (let at = 0; at < size * size; at++) {
    const [dx, dy] = [(at % size) - middle[0], Math.floor(at / size) - middle[1]].map(Math.abs);
    const inside = Math.min(1, Math.max(0, reach + 0.5 - (square ? Math.max(dx, dy) : Math.hypot(dx, dy))));
    const ground = 190 + 40 * light;
    for (let c = 0; c < 3; c++) pixels[3 * at + c] = ground + inside * (colour[c] - ground);
  }
  return pixels;
}
const pictures = Array.from({ length: PICTURES }, (_, i) => picture(i));
const classes = Int32Array.from({ length: PICTURES }, (_, i) => i % CLASSES);

function batchOf(indices) {
  const images = new Uint8Array(indices.length * size * size * 3);
  indices.forEach((index, i) => {
    images.set(pictures[index], i * size * size * 3);
  });
  return {
    images,
    classes: Int32Array.from(indices, (index) => classes[index]),
    indices: Uint32Array.from(indices),
  };
}

/** The interface that a trainer needs from a loader: endless batches from a position on, reshuffled each epoch. */
function openPictures({ epoch, offset } = { epoch: 0, offset: 0 }) {
  let at = epoch * PICTURES + offset;
  const index = (place) =>
    Random.of(config.seed, `order/${Math.floor(place / PICTURES)}`).permutation(PICTURES)[place % PICTURES];
  return {
    get position() {
      return { epoch: Math.floor(at / PICTURES), offset: at % PICTURES };
    },
    async next() {
      const count = config.tokenizer_training.batch_size;
      at += count;
      return batchOf(Array.from({ length: count }, (_, i) => index(at - count + i)));
    },
    paths: ({ indices }) => Array.from(indices, (i) => `picture ${i}`),
    async gatherUnreadable() {},
    async close() {},
  };
}

/** The interface that a generator's trainer needs from a token cache, in memory. */
const cacheOf = (codes) => ({
  path: 'memory',
  ...{ images: PICTURES, crops: 1, tokens: geometry.tokens, classes },
  classNames: Array.from({ length: CLASSES }, (_, i) => `class ${i}`),
  async read(image, _, into, offset) {
    into.set(codes.subarray(image * geometry.tokens, (image + 1) * geometry.tokens), offset);
  },
  async close() {},
});

const partsOf = (trainer) => Object.entries({ model: trainer.model, ...trainer.trainingParts });

/** Everything that a checkpoint holds. */
async function save(trainer) {
  const parts = {};
  for (const [name, parameters] of partsOf(trainer)) {
    parts[name] = new Map();
    for (const p of parameters) parts[name].set(p.name, (await p.value.data()).slice());
  }
  return { state: structuredClone(trainer.state), parts };
}

function restore(trainer, { state, parts }) {
  for (const [name, parameters] of partsOf(trainer))
    for (const p of parameters) p.value = tf.tensor(parts[name].get(p.name), [...p.shape]);
  trainer.restore(state);
}

/** Runs steps up to `end` and reports the metrics of each. */
async function go(trainer, end, curves) {
  while (trainer.steps < end) {
    const metrics = await trainer.step();
    for (const name of Object.keys(curves))
      if (name in metrics) curves[name].push([trainer.steps, metrics[name]]);
  }
}

async function finish(trainer) {
  await trainer.close?.();
  trainer.dispose();
}

/** Trains, then resumes from the state halfway. Returns the trainer, its curves, and how far the resumed curves are off. */
async function train(make, begin) {
  const trainer = make();
  begin(trainer);
  const curves = { loss: [], discriminator: [] };
  await go(trainer, half, curves);
  const saved = await save(trainer);
  await go(trainer, steps, curves);
  const resumed = make();
  restore(resumed, saved);
  const again = { loss: [], discriminator: [] };
  await go(resumed, steps, again);
  await finish(resumed);
  const off = Object.entries(again).flatMap(([name, points]) => {
    const before = new Map(curves[name]);
    return points.map(([step, value]) => Math.abs(value / before.get(step) - 1));
  });
  return { trainer, curves, resumed: Math.max(...off) };
}

/** Codes (PICTURES, T) of all pictures. */
const tokenize = (tokenizer) => {
  const { images } = batchOf([...pictures.keys()]);
  return tf.tidy(() => tokenizer.tokenize(toTensor(images, size)).dataSync());
};

const sample = async (generator) => {
  const labels = Array.from({ length: CLASSES }, (_, i) => i);
  const codes = await sampleCodes(generator, labels, sampleOptions(config.sample));
  const values = await codes.data();
  codes.dispose();
  return values;
};

/**
 * Runs all stages on the current engine and calls `report` after each. `reference` is the result of the other engine: its
 * codes are the training data of the generator here too, and its weights are evaluated here.
 */
async function run(reference, report = () => {}) {
  const stages = {};
  const stage = async (name, make, begin) => {
    stages[name] = await train(make, begin);
    report(name, stages[name], reference?.stages[name]);
    return stages[name].trainer;
  };
  const tokenizer = (number) => () => new TokenizerTrainer(config, number, openPictures);
  const stage1 = await stage('stage 1', tokenizer(1), (trainer) => trainer.initialize());
  const stage2 = await stage('stage 2', tokenizer(2), (trainer) => trainer.initialize(stage1.tokenizer));
  const tokenizerWeights = await save(stage2);
  if (reference) restore(stage2, reference.tokenizerWeights);
  const codes = tokenize(stage2.tokenizer);
  const { prefix_tokens, grid } = geometry;
  const sizes = { ...config.generator, codebook_size, prefix_tokens, grid };
  const cache = cacheOf(reference?.codes ?? codes);
  const ar = await stage(
    'generator',
    () => new GeneratorTrainer(config, cache, sizes),
    (trainer) => trainer.initialize(),
  );
  const own = await sample(ar.generator);
  const generatorWeights = await save(ar);
  if (reference) restore(ar, reference.generatorWeights);
  const sampled = await sample(ar.generator);
  for (const trainer of [stage1, stage2, ar]) await finish(trainer);
  return { stages, codes, own, sampled, tokenizerWeights, generatorWeights };
}

/** For each point, the mean of the last WINDOW points. */
const smoothed = (points) =>
  points.map((_, i) => {
    const part = points.slice(Math.max(0, i - WINDOW + 1), i + 1);
    return part.reduce((sum, [, value]) => sum + value, 0) / part.length;
  });

const percent = (share) => `${(100 * share).toPrecision(3)} %`;
const problems = [];
function say(name, text, wrong = false) {
  if (wrong) problems.push(name);
  console.log(`${name.padEnd(26)} ${text}${wrong ? '  <--' : ''}`);
}

/** Reports how the curves of a stage compare with those of the CPU. */
function compareStage(name, { curves, resumed }, { curves: others }) {
  const ends = (curve) => [curve[0], curve.at(-1)].map(([, value]) => value.toPrecision(4)).join(' to ');
  for (const [kind, points] of Object.entries(curves)) {
    if (points.length === 0) continue;
    const [a, b] = [points, others[kind]].map(smoothed);
    const apart = Math.max(...a.map((value, i) => Math.abs(value / b[i] - 1)));
    const text = `${ends(points)}, on the CPU ${ends(others[kind])}; smoothed at most ${percent(apart)} apart`;
    say(kind === 'loss' ? name : `${name}, ${kind}`, text, !(apart <= APART));
  }
  const text = resumed === 0 ? 'the same bits' : `at most ${percent(resumed)} apart`;
  say(`${name}, resumed at half`, text, tf.backend().device === 'cpu' ? resumed !== 0 : !(resumed <= APART));
}

/** Reports how many codes are the same. */
function compareCodes(name, codes, others, least) {
  const same = codes.reduce((sum, code, i) => sum + (code === others[i] ? 1 : 0), 0) / codes.length;
  say(name, `${percent(same)} of ${codes.length} are the same`, same < least);
}

const seconds = (start) => ((performance.now() - start) / 1000).toFixed(1);

let start = performance.now();
await openEngine('libtorch', { device: 'cpu', threads });
const cpu = await run();
console.log(`on the CPU in float32: ${steps} steps of each stage, ${seconds(start)} s`);
const { description } = await openEngine('libtorch', { device: options.device, precision, tf32, threads });
start = performance.now();
const here = await run(cpu, compareStage);
compareCodes('codes, same weights', here.codes, cpu.codes, SAME_CODES);
compareCodes('sampled, same weights', here.sampled, cpu.sampled, SAME_CODES);
compareCodes('sampled, own weights', here.own, cpu.own, 0);
console.log(`with ${description}: ${seconds(start)} s`);
console.log(problems.length === 0 ? 'curves agree' : `not as on the CPU: ${problems.join('; ')}`);
process.exitCode = problems.length === 0 ? 0 : 1;
