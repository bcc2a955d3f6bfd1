import type { EngineName } from '../../src/engine/index.js';
import type { Job } from '../../src/job/job.js';

/** A program without output, which is asked to stop once `step` of its work is done. */
export function quietJob(engine: EngineName, step = Number.POSITIVE_INFINITY): Job {
  const controller = new AbortController();
  const update = (done: number) => {
    if (done >= step) controller.abort();
  };
  return {
    engine: { name: engine, description: engine, threads: 1 },
    command: 'alitok',
    reporter: { progress: () => ({ update, stop() {} }), info() {}, warn() {} },
    interruptible: (work) => work(controller.signal),
    logTo() {},
  };
}
