// Runs one case of `alitok bench` on request (compare.js): sets it up, runs it once to warm up, prints a line, and then runs
// it once for each line that it receives. Prints a line of JSON each time.
//   node test/bench/ours.js sample:1:32 CONFIG '{"engine": "libtorch", "threads": 2, "weights": "float32", …}'
import { createInterface } from 'node:readline';
import { openCase, parseCase } from '../../dist/bench/cases.js';
import { time } from '../../dist/bench/measure.js';
import { loadConfig } from '../../dist/config/load.js';
import { openEngine } from '../../dist/engine/index.js';

const [, , name, config, given] = process.argv;
const { engine, weights, ...options } = JSON.parse(given);
const { description } = await openEngine(engine, options);
const { run } = openCase(parseCase(name), await loadConfig(config, []), { weights, ...options });
await time(run);
console.log(JSON.stringify({ ready: description }));
for await (const _ of createInterface({ input: process.stdin })) {
  const { wall, cpu } = await time(run);
  console.log(JSON.stringify({ seconds: wall, processor_seconds: cpu }));
}
process.exit();
