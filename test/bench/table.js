// Prints one table from the output of `alitok bench --json` and peer.py: each case with the times of alitok, eager and
// compiled PyTorch, the ratios peer/alitok, images per second, the share of the machine's limit, memory, and kernels per run
// or decoding step.
//   node test/bench/table.js times.jsonl
import { readFileSync } from 'node:fs';

const GIB = 2 ** 30;
const lines = process.argv
  .slice(2)
  .flatMap((file) => readFileSync(file, 'utf8').split('\n'))
  .filter((line) => line.startsWith('{'))
  .map((line) => JSON.parse(line));

const sizeOf = ({ size, config }) => size ?? /alitok_(\w+)\.yaml$/.exec(config)?.[1] ?? 'b';
const withoutDropout = ({ case: name, dropout, description }) =>
  name.startsWith('train') && (dropout === 0 || /no dropout/.test(description));

const composed = ({ engine_version: version = '' }) => /without alitok's own kernels/.test(version);

const rows = new Map();
for (const line of lines) {
  const who = line.engine ? 'alitok' : line.compiled ? 'compiled' : 'eager';
  const how = [withoutDropout(line) && 'no dropout', composed(line) && 'without own kernels'];
  const name = [`${sizeOf(line)} ${line.case}`, ...how.filter(Boolean)].join(', ');
  const key = `${name} ${line.precision}`;
  if (!rows.has(key)) rows.set(key, { name, precision: line.precision });
  rows.get(key)[who] = line;
}

const seconds = (result) => (result === undefined ? '' : result.error ? 'failed' : result.seconds.toFixed(3));
const gib = (result) => (result?.peak_memory ? (result.peak_memory / GIB).toFixed(1) : '');
const kernels = (result) => Math.round(result?.kernels_per_step ?? result?.kernels ?? 0) || '';
const head =
  'case, precision, alitok s, eager s, compiled s, eager/alitok, compiled/alitok, images/s, share of limit, GiB alitok, GiB eager, GiB compiled, kernels alitok, kernels eager, kernels compiled';
const table = [head.split(', ')];
for (const { name, precision, alitok, eager, compiled } of rows.values()) {
  const ratio = (other) =>
    alitok?.seconds && other?.seconds ? (other.seconds / alitok.seconds).toFixed(2) : '';
  table.push([
    name,
    precision,
    ...[alitok, eager, compiled].map(seconds),
    ratio(eager),
    ratio(compiled),
    alitok?.images_per_second?.toPrecision(3) ?? '',
    alitok?.share_of_limit ? `${(100 * alitok.share_of_limit).toFixed(0)} % ${alitok.limited_by}` : '',
    ...[alitok, eager, compiled].map(gib),
    ...[alitok, eager, compiled].map(kernels),
  ]);
}
table.splice(
  1,
  0,
  table[0].map(() => '---'),
);
const cells = table.map((row) => row.map(String));
for (const row of cells) console.log(`| ${row.join(' | ')} |`);
for (const { case: name, precision, error } of lines.filter((line) => line.error))
  console.log(`${name}, ${precision ?? ''}: ${error}`);
