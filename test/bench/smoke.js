// The first thing to run on a new machine: lists the hardware, checks whether each operation has the same result on a device
// as on the CPU and whether processes can communicate, and measures the host's overhead per call. Each check runs even if
// others fail: they run in a child process, which is replaced when it dies or hangs.
//   node test/bench/smoke.js [--device cuda] [--precision float32|bf16] [--tf32] [--only WORD]
// Without a precision, all that the device supports are tested; --only selects the tasks with a word in their names. It
// needs dist/ with the bridge in it.
import { fork, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { OPERATOR_CHECKS } from '../../dist/doctor/operators.js';
import { devices } from '../../dist/engine/index.js';

const { values } = parseArgs({
  options: {
    device: { type: 'string' },
    precision: { type: 'string' },
    tf32: { type: 'boolean', default: false },
    only: { type: 'string', default: '' },
  },
});
const found = devices();
const device = values.device ?? (found.length > 1 ? 'cuda' : 'cpu');
const onCpu = device === 'cpu';

/** Time limit of a task in seconds, and of the first task of a process, which loads the library and starts the device. */
const PATIENCE = 20;
const FIRST_PATIENCE = 90;
/** Time limit for the child to end by itself. */
const FAREWELL = 10;
/** Number of children that may die: each time, restarting the device takes seconds. */
const MOST_DEATHS = 8;

const chosen = { precision: values.precision ?? 'float32', tf32: values.tf32 };
const all = [{ precision: 'float32' }, { precision: 'bf16' }, ...(onCpu ? [] : [{ tf32: true }])];
const precisions = values.precision || values.tf32 ? [chosen] : all;
const titleOf = ({ precision = 'float32', tf32 }) =>
  `operations in ${tf32 ? (precision === 'bf16' ? 'bf16 and TF32' : 'TF32') : precision}, beside the CPU in float32`;

/** The child's tasks, in order; a title is printed above the first of its kind. */
const tasks = [
  { what: 'versions', name: 'engine', title: 'versions' },
  ...precisions.flatMap((precision) =>
    OPERATOR_CHECKS.map(({ name }) => ({ what: 'operator', name, precision, title: titleOf(precision) })),
  ),
  ...['once', 'and again'].map((name) => ({
    what: 'group',
    name,
    title: `a group of one process over ${onCpu ? 'Gloo' : 'NCCL'}: join, sum, gather, leave`,
  })),
  ...['view', 'launch', 'tfjs', 'small', 'large', 'read'].map((name) => ({
    what: 'cost',
    name,
    title: 'what the host takes for a call, and with what the device takes, in microseconds',
  })),
].filter(({ name }) => name.includes(values.only));

const counts = { ok: 0, BAD: 0, FAIL: 0 };
let title = '';
let endsWell = true;

function say(task, { status, text }) {
  if (task.title !== title) console.log(`\n${task.title}`);
  title = task.title;
  counts[status] += 1;
  console.log(`${status.padEnd(4)} ${text}`);
}

/** Runs the tasks from `first` on in a child; returns the first remaining task if the child ended early. */
function doFrom(first) {
  const child = fork(fileURLToPath(new URL('smoke-tasks.js', import.meta.url)));
  let at = first;
  let patience;
  const end = () => {
    clearTimeout(patience);
    child.removeAllListeners('message');
    child.kill('SIGKILL');
  };
  const fail = (why) => {
    say(tasks[at], { status: 'FAIL', text: `${tasks[at].name}: ${why}` });
    at += 1;
  };
  const wait = (seconds) => {
    clearTimeout(patience);
    patience = setTimeout(() => {
      fail(`not done within ${seconds} s`);
      end();
    }, 1000 * seconds);
  };
  const next = () => {
    if (at < tasks.length) {
      child.send({ ...tasks[at], device });
      wait(at === first ? FIRST_PATIENCE : PATIENCE);
      return;
    }
    clearTimeout(patience);
    child.disconnect();
    patience = setTimeout(() => child.kill(), 1000 * FAREWELL);
  };
  child.on('message', (message) => {
    if (message.ready) return next();
    say(tasks[at], message);
    at += 1;
    if (!message.lost) return next();
    console.log('     the device answers nothing after that: the others are tried in another process');
    end();
  });
  wait(FIRST_PATIENCE);
  return new Promise((resolve) => {
    child.on('exit', (code, signal) => {
      clearTimeout(patience);
      const how = signal ?? `exit code ${code}`;
      const endedHere = child.listenerCount('message') === 0;
      if (at < tasks.length && !endedHere) fail(`the process died (${how})`);
      else if (!endedHere && how !== 'exit code 0') {
        endsWell = false;
        console.log(`FAIL after its last task the process ended with ${how}`);
      }
      resolve(at);
    });
  });
}

console.log(`Node.js ${process.version}, devices ${found.join(', ')}; on ${device}`);
const gpu = spawnSync('nvidia-smi', [
  '--query-gpu=name,memory.total,driver_version',
  '--format=csv,noheader',
]);
if (gpu.status === 0) console.log(String(gpu.stdout).trim());
let deaths = 0;
for (let at = await doFrom(0); at < tasks.length; at = await doFrom(at)) {
  deaths += 1;
  if (deaths === MOST_DEATHS) {
    console.log(`\n${tasks.length - at} tasks were not tried: ${deaths} processes died`);
    break;
  }
}
const { ok, BAD, FAIL } = counts;
console.log(`\n${ok} of ${tasks.length} are right, ${BAD} wrong, ${FAIL} failed`);
process.exitCode = ok === tasks.length && endsWell ? 0 : 1;
