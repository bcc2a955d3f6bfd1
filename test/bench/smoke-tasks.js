// The child process of smoke.js: runs tasks in the order in which they are sent, and answers each with a line.
import { createServer } from 'node:net';
import * as tf from '@tensorflow/tfjs';
import { besideCpu, compareOperators } from '../../dist/doctor/compare-operators.js';
import { ProcessGroup } from '../../dist/engine/distributed/process-group.js';
import { openEngine } from '../../dist/engine/index.js';
import { programVersions } from '../../dist/versions.js';

process.env.ALITOK_JOIN_TIMEOUT ??= '60';
const ENGINE = 'libtorch';

async function versions({ device }) {
  const { description } = await openEngine(ENGINE, { device });
  const { alitok, tfjs } = programVersions().versions;
  const { runtimeVersion } = tf.backend().native;
  return { text: `alitok ${alitok}, tfjs ${tfjs}; ${description}, which loads PyTorch ${runtimeVersion}` };
}

/** The CPU's results, which are the same for every precision. */
const known = new Map();

async function operator({ name, device, precision }) {
  const sides = besideCpu(ENGINE, { device, ...precision });
  for await (const result of compareOperators(sides, { only: [name], known })) {
    const { error, limit, worst, milliseconds, passed, failure, lost } = result;
    const time = `${milliseconds.toFixed(0)} ms`.padStart(8);
    const begin = name.padEnd(34);
    if (failure) return { status: 'FAIL', text: `${begin} ${time}  ${failure}`, lost };
    const off = `${error.toExponential(1).padStart(8)} of ${limit.toExponential(0)}`;
    return { status: passed ? 'ok' : 'BAD', text: `${begin} ${off} ${time}  ${worst}` };
  }
}

async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function group({ name, device }) {
  await openEngine(ENGINE, { device });
  const start = performance.now();
  const place = { rank: 0, size: 1, localRank: 0, host: '127.0.0.1', serves: true, prefix: 'smoke' };
  const group = await ProcessGroup.join({ ...place, port: await freePort() });
  const met = performance.now();
  const x = tf.range(0, 1000);
  const [[sum], all] = [await group.allReduce([x])(), await group.allGather(x)];
  const right = [sum, all].every((result) => result.sub(x).abs().max().dataSync()[0] === 0);
  await group.leave();
  const times = [met - start, performance.now() - met].map((time) => time.toFixed(0));
  return {
    status: right ? 'ok' : 'BAD',
    text: `${name}: ${times[0]} ms to meet, ${times[1]} ms to sum, gather and leave`,
  };
}

/** The device works in order, so all earlier work is done when this read returns. */
function settle() {
  const last = tf.fill([1], 1);
  last.dataSync();
  last.dispose();
}

/** Microseconds per call: to launch it, and until it has completed in a long sequence of calls. */
function costOf(call) {
  const COUNT = 2000;
  for (let i = 0; i < 50; i++) call();
  settle();
  const start = performance.now();
  for (let i = 0; i < COUNT; i++) call();
  const host = performance.now() - start;
  settle();
  return [host, performance.now() - start].map((time) => ((1000 * time) / COUNT).toFixed(1));
}

async function cost({ name, device }) {
  await openEngine(ENGINE, { device });
  const backend = tf.backend();
  const [a, b, x] = [tf.fill([], 1), tf.fill([], 2), tf.fill([2, 768], 1)];
  const [few, many] = [2 ** 10, 2 ** 18].map((size) => new Float32Array(size));
  const called = (...call) => backend.native.free(backend.call(...call));
  const id = backend.id(x);
  const calls = {
    view: ['a call that makes a view', () => called('narrow', id, 0, 0, 1)],
    launch: ['a call that adds two tensors', () => called('add.Tensor', id, id)],
    tfjs: ["tfjs's sum of two numbers", () => tf.add(a, b).dispose()],
    small: ['sending 4 KB', () => tf.tensor(few).dispose()],
    large: ['sending 1 MB', () => tf.tensor(many).dispose()],
    read: ['reading one number', () => a.dataSync()],
  };
  const [text, call] = calls[name];
  const [host, end] = costOf(call);
  tf.dispose([a, b, x]);
  return { text: `${text.padEnd(34)} ${host.padStart(8)} of the host ${end.padStart(8)} to its end` };
}

const DO = { versions, operator, group, cost };

process.on('message', async (task) => {
  let answer;
  try {
    answer = await DO[task.what](task);
  } catch (error) {
    answer = { status: 'FAIL', text: `${task.name}: ${error.message.split('\n')[0]}` };
  }
  process.send({ status: 'ok', ...answer });
});
process.send({ ready: true });
