// Estimates memory and time of training: derived, not measured, from the models' sizes and a device's data sheet.
//
//   node test/bench/scale.js                            the tables of docs/scaling.md
//   node test/bench/scale.js generator.dropout=0        with other values of the config
//   node test/bench/scale.js --rates b=900,l=600        with measured images per second of one device instead of the
//                                                       data sheet's (b, l, xl, stage1, stage2)
//   node test/bench/scale.js --tables memory,fits       only these of memory, image, generators, tokenizers, fits
//   node test/bench/scale.js --check 330e9,43e9,2:1.84  the result of the same formulas for a CPU with that matrix rate
//                                                       and memory bandwidth, beside the seconds of a training step of
//                                                       AR-B at batch 2: all as `alitok bench train` prints them
//
// Defaults are an H100 SXM, eight per machine, NVLink within and 400 Gb/s per GPU between machines.
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { loadConfig } from '../../dist/config/load.js';
import { BF16, bytesOf, FLOAT32, OPTIMIZER, ROUNDED_COPY, WEIGHT } from './scale-blocks.js';
import { FLOAT, generatorStep, tokenizerStep } from './scale-parts.js';

const { values, positionals: overrides } = parseArgs({
  allowPositionals: true,
  options: {
    // FLOP/s of dense products in bf16 and in float32, and bytes per second of the device's memory
    peak: { type: 'string', default: '989e12' },
    peak32: { type: 'string', default: '67e12' },
    bandwidth: { type: 'string', default: '3.35e12' },
    // sustained shares of these
    'peak-share': { type: 'string', default: '0.5' },
    'bandwidth-share': { type: 'string', default: '0.75' },
    // GiB, and how much of it CUDA, its libraries and memory fragmentation take
    memory: { type: 'string', default: '79' },
    reserve: { type: 'string', default: '6' },
    // bytes per second in one direction per GPU: within a machine, between machines; and the share reached
    link: { type: 'string', default: '450e9' },
    network: { type: 'string', default: '50e9' },
    'link-share': { type: 'string', default: '0.7' },
    'gpus-a-machine': { type: 'string', default: '8' },
    gpus: { type: 'string', default: '1,8,16,64' },
    rates: { type: 'string', default: '' },
    tables: { type: 'string', default: 'memory,image,fits,generators,tokenizers' },
    check: { type: 'string' },
  },
});
const number = (name) => Number(values[name]);
const device = {
  products: number('peak') * number('peak-share'),
  products32: number('peak32') * number('peak-share'),
  bandwidth: number('bandwidth') * number('bandwidth-share'),
  memory: (number('memory') - number('reserve')) * 2 ** 30,
};
const rates = Object.fromEntries(
  values.rates
    .split(',')
    .filter(Boolean)
    .map((text) => text.split('='))
    .map(([name, rate]) => [name, Number(rate)]),
);
const path = (name) => fileURLToPath(new URL(`../../${name}`, import.meta.url));
const configOf = (name) => loadConfig(path(`configs/${name}.yaml`), overrides);
const sum = (items, of) => items.reduce((total, item) => total + of(item), 0);

/** Seconds that one image takes on a device, forward and backward, by resource. */
function imageSeconds(step, { products, products32, bandwidth }, checkpointed = false) {
  const trained = step.stacks.filter(({ frozen }) => !frozen);
  const forward = sum(trained, (s) => s.operations);
  const operations =
    3 * (forward + step.operations) +
    sum(trained, (s) => s.attention) +
    sum(step.stacks, (s) => (s.frozen ? s.operations : 0)) +
    (checkpointed ? forward : 0) +
    2 * (step.inputOnly ?? 0) +
    (step.forwardOnly ?? 0);
  const bytes = (kind) =>
    sum([...step.stacks, step.ends], (s) => s.forward[kind] + (s.frozen ? 0 : s.backward[kind])) +
    (checkpointed ? sum(trained, (s) => s.forward[kind]) : 0);
  return {
    products: operations / products,
    products32: step.operations32 / products32,
    memory: (bytes('moved') + (step.networksMoved ?? 0)) / bandwidth,
    scores: bytes('scores') / bandwidth,
  };
}

const totalOf = (parts) => sum(Object.values(parts), (seconds) => seconds);

/** Peak bytes of one image's activations and their gradients. */
function imageBytes({ stacks, ends, networks }, checkpointed) {
  const gradientsOf = (s) => (s.frozen ? 0 : s.gradients);
  const ofBackward = checkpointed ? 0 : sum(stacks, gradientsOf);
  const inStacks = checkpointed
    ? sum(stacks, (s) => (s.frozen ? 1 : 2) * s.input) +
      Math.max(0, ...stacks.map((s) => (s.kept + gradientsOf(s)) / s.layers))
    : sum(stacks, (s) => s.kept) + ofBackward;
  // Those of frozen networks are freed before the backward pass, when there are no gradients yet. Attention's scores live
  // in one kernel.
  const ofNetworks = Math.max(0, 2 * networks - ofBackward);
  return inStacks + ends.kept + ends.gradients + ofNetworks + Math.max(0, ...stacks.map((s) => s.atOnce));
}

/** Bytes of the weights: in float32, and the copies in bfloat16 that products read. */
const weightBytes = ({ parameters, copied }) => FLOAT * parameters + BF16.half * copied;

/** Bytes that do not depend on the batch: weights, AdamW's two moments, and all copies of the gradients. */
function stateBytes(step, { gpus, accumulation, sharded }) {
  const { trained, beside = 0 } = step;
  const moments = (2 * (trained + beside)) / (sharded ? gpus : 1);
  // Gradients of the tape, their sum over micro-batches, and their sum over processes.
  const gradients = (1 + (accumulation > 1 ? 1 : 0) + (gpus > 1 ? 1 : 0)) * trained;
  return weightBytes(step) + FLOAT * (beside + moments + gradients);
}

/** Seconds for weights and their gradients in one micro-batch, whatever its size. */
function weightSeconds({ trained, copied }, { bandwidth }, { accumulation, checkpointed }, widths = BF16) {
  const bytes = (rows) => bytesOf(rows, widths).moved;
  const reads = checkpointed ? 3 : 2;
  const sums = accumulation > 1 ? bytes(WEIGHT.accumulated) : 0;
  return (reads * bytes(WEIGHT.product) * copied + (bytes(WEIGHT.gradient) + sums) * trained) / bandwidth;
}

/** Seconds for the work done once per step: the gradient's norm, AdamW, and the weights' copies. */
function optimizerSeconds({ trained, copied }, { bandwidth }, widths = BF16) {
  const bytes = (rows) => bytesOf(rows, widths).moved;
  return (bytes(OPTIMIZER) * trained + bytes(ROUNDED_COPY) * Math.min(copied, trained)) / bandwidth;
}

/** Seconds of communication between the processes, and how much of it the backward pass does not hide. */
function exchange(step, gpus, images, backward) {
  if (gpus === 1) return { bytes: 0, seconds: 0, exposed: 0 };
  const within = gpus <= number('gpus-a-machine');
  const speed =
    number('link-share') * (within ? number('link') : Math.min(number('link'), number('network')));
  const bytes = ((2 * (gpus - 1)) / gpus) * FLOAT * step.trained;
  const bucket = ((2 * (gpus - 1)) / gpus) * 25 * 2 ** 20;
  // Features of all processes for the clustering update, which waits for them.
  const gathered = (gpus - 1) * images * (step.latents ?? 0) * ((step.tokenSize ?? 0) + 1) * FLOAT;
  const seconds = bytes / speed;
  const exposed = Math.max(seconds - backward, Math.min(bytes, bucket) / speed) + gathered / speed;
  return { bytes, seconds, exposed };
}

/** A step of `images` per device, in the fewest micro-batches that fit. Undefined if not even one image fits. */
function plan(step, { gpus, images, sharded = false, checkpointed = false, rate }) {
  const each = imageBytes(step, checkpointed);
  for (let accumulation = 1; accumulation <= images; accumulation++) {
    if (images % accumulation !== 0) continue;
    const micro = images / accumulation;
    const state = stateBytes(step, { gpus, accumulation, sharded });
    const activations = micro * each;
    if (state + activations > device.memory) continue;
    const parts = imageSeconds(step, device, checkpointed);
    const one = rate ? 1 / rate : totalOf(parts);
    const weights = rate ? 0 : weightSeconds(step, device, { accumulation, checkpointed });
    const { bytes, seconds: link, exposed } = exchange(step, gpus, images, (2 / 3) * micro * one);
    const optimizer = optimizerSeconds(step, device) / (sharded ? gpus : 1);
    const again = sharded ? exchange(step, gpus, 0, 0).seconds / 2 : 0;
    const clusters =
      (2 * gpus * images * (step.latents ?? 0) * (step.entries ?? 0) * (step.tokenSize ?? 0)) /
      device.products32;
    const compute = images * one + accumulation * weights + clusters;
    const seconds = compute + exposed + optimizer + again;
    return {
      accumulation,
      micro,
      state,
      activations,
      each,
      parts,
      compute,
      link,
      bytes,
      exposed,
      optimizer,
      seconds,
    };
  }
  return undefined;
}

const gib = (bytes) => (bytes / 2 ** 30).toFixed(bytes < 10 * 2 ** 30 ? 2 : 1);
const days = (seconds) =>
  seconds >= 86_400 ? `${(seconds / 86_400).toFixed(1)} d` : `${(seconds / 3600).toFixed(1)} h`;
const time = (seconds) => {
  if (seconds >= 1) return `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
  return `${Number((1000 * seconds).toPrecision(2))} ms`;
};
const table = (head, rows) => {
  console.log(`| ${head.join(' | ')} |`);
  console.log(`|${' --- |'.repeat(head.length)}`);
  for (const row of rows) console.log(`| ${row.join(' | ')} |`);
  console.log();
};
const NAMES = {
  products: 'products',
  products32: 'float32 products',
  memory: 'memory traffic',
  scores: 'attention scores',
};
/** The resource that takes most of the time. */
function limit({ parts, compute, exposed, optimizer }) {
  if (exposed + optimizer > compute) return exposed > optimizer ? 'link' : 'optimizer';
  const { scores, ...others } = parts; // scores are memory traffic too
  others.memory += scores;
  return NAMES[Object.entries(others).sort(([, a], [, b]) => b - a)[0][0]];
}
const counts = values.gpus.split(',').map(Number);

const generators = ['b', 'l', 'xl'].map((name) => ({ name, config: configOf(`alitok_${name}`) }));
const tokenizer = configOf('tokenizer');
/** The number of steps of each kind in a stage's phases. In adversarial phases, every other step is the discriminator's. */
const phasesOf = (stage) =>
  tokenizer.tokenizer_training[`stage${stage}`].phases.flatMap((phase) =>
    phase.adversarial
      ? ['tokenizer', 'discriminator'].map((turn) => ({
          steps: phase.steps / 2,
          step: tokenizerStep(tokenizer, stage, phase, turn),
        }))
      : [{ steps: phase.steps, step: tokenizerStep(tokenizer, stage, phase) }],
  );

function printMemory() {
  const models = [
    ...generators.map(({ name, config }) => [`AR-${name.toUpperCase()}`, generatorStep(config)]),
    ...[1, 2].map((stage) => {
      const steps = phasesOf(stage).map(({ step }) => step);
      const most = steps.reduce((a, b) => (imageBytes(a, false) > imageBytes(b, false) ? a : b));
      return [`tokenizer, stage ${stage}`, most];
    }),
  ];
  const rows = models.map(([name, step]) => [
    name,
    (step.parameters / 1e6).toFixed(0),
    (step.trained / 1e6).toFixed(0),
    gib(weightBytes(step)),
    gib(FLOAT * step.trained),
    gib(2 * FLOAT * (step.trained + (step.beside ?? 0))),
    gib((2 * FLOAT * (step.trained + (step.beside ?? 0))) / 8),
    gib(imageBytes(step, false)),
    gib(imageBytes(step, true)),
  ]);
  table(
    [
      '',
      'parameters, 10⁶',
      'trained',
      'weights',
      'gradients',
      'moments',
      'of 8, sharded',
      'an image',
      'checkpointed',
    ],
    rows,
  );
}

function printTimeOfImage() {
  const rows = [];
  const add = (name, step) => {
    const parts = imageSeconds(step, device);
    const again = totalOf(imageSeconds(step, device, true));
    const cells = Object.keys(NAMES).map((key) => (parts[key] > 0 ? time(parts[key]) : ''));
    rows.push([name, ...cells, time(totalOf(parts)), time(again)]);
  };
  for (const { name, config } of generators) add(`AR-${name.toUpperCase()}`, generatorStep(config));
  for (const stage of [1, 2])
    phasesOf(stage).forEach(({ step }, i) => {
      add(`stage ${stage}, ${['phase 1', 'phase 2', 'phase 3', 'phase 3, discriminator'][i]}`, step);
    });
  table(['', ...Object.values(NAMES), 'an image', 'checkpointed'], rows);
}

function printGenerators() {
  const rows = [];
  for (const { name, config } of generators) {
    const step = generatorStep(config);
    const { batch_size, steps } = config.generator_training;
    for (const gpus of counts) {
      const options = { gpus, images: batch_size / gpus, rate: rates[name] };
      const found = plan(step, options);
      rows.push([
        `AR-${name.toUpperCase()}`,
        gpus,
        `${found.accumulation} × ${found.micro}`,
        gib(found.state + found.activations),
        time(found.compute),
        gpus > 1 ? `${time(found.link)} (${time(found.exposed)})` : '',
        time(found.optimizer),
        days(steps * found.seconds),
        limit(found),
      ]);
    }
  }
  table(
    [
      '',
      'GPUs',
      'accumulation × images',
      'GiB',
      'compute',
      'all-reduce (not hidden)',
      'AdamW',
      'the recipe',
      'limit',
    ],
    rows,
  );
}

function printTokenizers() {
  const images = tokenizer.tokenizer_training.batch_size;
  const rows = [];
  for (const stage of [1, 2])
    for (const gpus of counts) {
      const plans = phasesOf(stage).map(({ steps, step }) => ({
        steps,
        found: plan(step, { gpus, images, rate: rates[`stage${stage}`] }),
      }));
      const most = plans.reduce((a, b) => (a.found.accumulation > b.found.accumulation ? a : b)).found;
      const whole = sum(plans, ({ steps, found }) => steps * found.seconds);
      const steps = sum(plans, ({ steps: some }) => some);
      const mean = (of) => sum(plans, ({ steps: some, found }) => some * of(found)) / steps;
      rows.push([
        `stage ${stage}`,
        gpus,
        images * gpus,
        `${most.accumulation} × ${most.micro}`,
        gib(Math.max(...plans.map(({ found }) => found.state + found.activations))),
        time(mean(({ compute }) => compute)),
        gpus > 1 ? `${time(mean(({ link }) => link))} (${time(mean(({ exposed }) => exposed))})` : '',
        (images / mean(({ seconds }) => seconds)).toFixed(0),
        days(whole),
        limit(plans[1].found),
      ]);
    }
  table(
    [
      '',
      'GPUs',
      'images a step',
      'accumulation × images',
      'GiB',
      'compute',
      'all-reduce (not hidden)',
      'images/s a GPU',
      'the recipe',
      'limit',
    ],
    rows,
  );
}

/** The largest micro-batch that fits a device with this many GiB, one of eight: without and with checkpointing. */
function printFits() {
  const memories = [24, 40, 79];
  const models = [
    ...generators.map(({ name, config }) => [`AR-${name.toUpperCase()}`, [generatorStep(config)]]),
    ...[1, 2].map((stage) => [`tokenizer, stage ${stage}`, phasesOf(stage).map(({ step }) => step)]),
  ];
  const most = (step, memory, { sharded, checkpointed }) => {
    const state = stateBytes(step, { gpus: 8, accumulation: 2, sharded });
    const free = (memory - number('reserve')) * 2 ** 30 - state;
    return Math.max(0, Math.floor(free / imageBytes(step, checkpointed)));
  };
  const rows = models.flatMap(([name, steps]) =>
    [false, true].map((sharded) => [
      sharded ? `${name}, moments sharded` : name,
      ...memories.flatMap((memory) =>
        [false, true].map((checkpointed) =>
          Math.min(...steps.map((step) => most(step, memory, { sharded, checkpointed }))),
        ),
      ),
    ]),
  );
  table(['', ...memories.flatMap((memory) => [`${memory} GiB`, 'checkpointed'])], rows);
}

/**
 * The formulas' result for a CPU, from its limits, beside measured training steps of AR-B without dropout: the same tables,
 * with all numbers in float32, so nothing is rounded.
 */
function check([rate, bandwidth, ...measured]) {
  const config = loadConfig(path('configs/alitok_b.yaml'), ['generator.dropout=0']);
  const step = generatorStep(config, FLOAT32);
  const products = Number(rate);
  const cpu = { products, products32: products, bandwidth: Number(bandwidth) };
  const one = totalOf(imageSeconds(step, cpu));
  const once = weightSeconds(step, cpu, { accumulation: 1 }, FLOAT32) + optimizerSeconds(step, cpu, FLOAT32);
  const rows = measured.map((text) => {
    const [batch, seconds] = text.split(':').map(Number);
    const derived = batch * one + once;
    return [batch, derived.toFixed(2), seconds.toFixed(2), (derived / seconds).toFixed(2)];
  });
  table(['batch', 's, derived', 's, measured', 'ratio'], rows);
  for (const checkpointed of [false, true]) {
    const bytes = 2 * FLOAT * step.parameters + 4 * imageBytes(step, checkpointed);
    const how = checkpointed ? 'computed again' : 'kept';
    console.log(`weights, gradients and activations at batch 4, ${how}: ${gib(bytes)} GiB`);
  }
}

if (values.check) check(values.check.split(','));
else {
  const print = {
    memory: printMemory,
    image: printTimeOfImage,
    fits: printFits,
    generators: printGenerators,
    tokenizers: printTokenizers,
  };
  for (const name of values.tables.split(',')) print[name]();
}
