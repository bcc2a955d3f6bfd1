// Times `alitok bench` and the PyTorch peer in turn, in one run, and prints the ratios peer/ours: by the clock, and of
// processor time, which with --threads 1 (no thread waits for another) means something on a busy machine too.
//   node test/bench/compare.js [case:batch[:steps] ...] [--threads 2] [--engine libtorch] [--device cpu] [--precision bf16]
//     [--tf32] [--weights int8] [--rounds 3] [--python /usr/bin/python3] [--raw FILE]
import { execFileSync } from 'node:child_process';
import { appendFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const path = (name) => fileURLToPath(new URL(name, import.meta.url));
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    threads: { type: 'string', default: '2' },
    engine: { type: 'string', default: 'libtorch' },
    rounds: { type: 'string', default: '3' },
    python: { type: 'string', default: '/usr/bin/python3' },
    device: { type: 'string', default: 'cpu' },
    precision: { type: 'string', default: 'float32' },
    tf32: { type: 'boolean', default: false },
    weights: { type: 'string', default: 'float32' },
    raw: { type: 'string' },
  },
});
const { threads, engine, rounds, python, device, precision, tf32, weights, raw } = values;
const half = precision === 'bf16' ? ['--bf16'] : [];
const rounded = tf32 ? ['--tf32'] : [];
const cases =
  positionals.length > 0 ? positionals : ['sample:1:32', 'sample:8:32', 'train:2', 'encode:1', 'decode:1'];

const lastLine = (file, args) =>
  JSON.parse(
    execFileSync(file, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })
      .trim()
      .split('\n')
      .at(-1),
  );

const median = (numbers) => [...numbers].sort((a, b) => a - b)[numbers.length >> 1];

for (const name of cases) {
  const [what, batch, steps] = name.split(':');
  const shared = [
    '--batch',
    batch,
    '--repeats',
    '2',
    '--threads',
    threads,
    ...(steps ? ['--steps', steps] : []),
  ];
  const config = ['-c', path('../../configs/alitok_b.yaml')];
  const times = { ours: [], peer: [] };
  const processor = { ours: [], peer: [] };
  let share = '';
  for (let round = 0; round < Number(rounds); round++) {
    const peer = lastLine(python, [
      path('peer.py'),
      what,
      ...shared,
      '--device',
      device,
      ...half,
      ...rounded,
    ]);
    times.peer.push(peer.seconds);
    const ours = lastLine(process.execPath, [
      path('../../bin/alitok.js'),
      '--engine',
      engine,
      '--device',
      device,
      '--precision',
      precision,
      ...rounded,
      'bench',
      what,
      ...config,
      ...shared,
      '--weights',
      weights,
      '--json',
    ]);
    if (raw) appendFileSync(raw, `${JSON.stringify({ case: name, peer, ours })}\n`);
    times.ours.push(ours.seconds);
    processor.peer.push(peer.processor_seconds);
    processor.ours.push(ours.processor_seconds);
    share = `${(100 * ours.share_of_limit).toFixed(0)} % of the ${ours.limited_by}`;
  }
  const [ours, peer] = [median(times.ours), median(times.peer)];
  const used = median(processor.peer) / median(processor.ours);
  console.log(
    `${name.padEnd(14)} peer ${peer.toFixed(3)} s  ours ${ours.toFixed(3)} s  ratio ${(peer / ours).toFixed(2)} (of processor time ${used.toFixed(2)})  ${(Number(batch) / ours).toPrecision(3)} images/s  (${share})`,
  );
}
