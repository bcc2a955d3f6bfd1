import { parentPort, workerData } from 'node:worker_threads';
import { controlViews, FAILED, FINISHED, GENERATION, KERNEL, type WorkerData } from './control.js';

// One thread of the pool: it waits for a kernel, runs its part and reports the end. It never returns to its event loop.

/** How often it polls before it sleeps: kernels usually follow each other within microseconds. */
const SPINS = 4000;

const { memory, module, kernels, control, part, parts } = workerData as WorkerData;
const { exports } = new WebAssembly.Instance(module, { env: { memory } });
const functions = kernels.map((name) => exports[name] as (...args: number[]) => void);
const { state, values } = controlViews(memory, control);

parentPort!.postMessage('ready');
for (let generation = 0; ; ) {
  for (let spins = 0; Atomics.load(state, GENERATION) === generation; )
    if (++spins > SPINS) Atomics.wait(state, GENERATION, generation);
  generation = Atomics.load(state, GENERATION);
  try {
    const count = values[0];
    const args = Array.from(values.subarray(1, 1 + count));
    functions[state[KERNEL]](...args, part, parts);
  } catch {
    Atomics.store(state, FAILED, 1);
  }
  Atomics.add(state, FINISHED, 1);
  Atomics.notify(state, FINISHED);
}
