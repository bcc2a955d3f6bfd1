import { readFileSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { EngineError, option } from '../../errors.js';
import {
  CONTROL_BYTES,
  type Control,
  controlViews,
  FAILED,
  FINISHED,
  GENERATION,
  KERNEL,
  type WorkerData,
} from './control.js';
import { builtFile } from './files.js';

/** Below this many elementary operations, waking another thread costs more than it saves. */
const SMALL = 30_000;
const SPINS = 20_000;
const WAIT_MS = 1000;
/** How long the other threads may take after this one before the engine is considered stuck. */
const DEADLINE_MS = 600_000;

type Kernel = (...args: number[]) => number;

/** Our kernels on tfjs's memory, shared by this thread and `threads − 1` others. */
export class Pool {
  private readonly state: Control;
  private readonly values: Float64Array;
  private generation = 0;
  private scratch = { address: 0, bytes: 0 };

  private constructor(
    readonly threads: number,
    private readonly memory: WebAssembly.Memory,
    private readonly kernels: Record<string, Kernel>,
    private readonly names: string[],
    private readonly allocate: (bytes: number) => number,
    private readonly free: (address: number) => void,
    control: number,
  ) {
    ({ state: this.state, values: this.values } = controlViews(memory, control));
  }

  /** Starts the threads. `allocate` and `free` are the memory's own. Throws EngineError if it is not built. */
  static async start(
    threads: number,
    memory: WebAssembly.Memory,
    allocate: (bytes: number) => number,
    free: (address: number) => void,
  ): Promise<Pool> {
    const module = new WebAssembly.Module(readFileSync(builtFile('kernels.wasm')));
    const { exports } = new WebAssembly.Instance(module, { env: { memory } });
    const names = Object.keys(exports);
    const control = allocate(CONTROL_BYTES);
    new Uint8Array(memory.buffer, control, CONTROL_BYTES).fill(0);
    const pool = new Pool(threads, memory, exports as Record<string, Kernel>, names, allocate, free, control);
    const path = builtFile('worker.js');
    const workers = Array.from({ length: threads - 1 }, (_, i) => {
      const workerData: WorkerData = { memory, module, kernels: names, control, part: i + 1, parts: threads };
      return new Worker(path, { workerData });
    });
    await Promise.all(workers.map((worker) => new Promise((resolve) => worker.once('message', resolve))));
    for (const worker of workers) worker.unref();
    return pool;
  }

  /** Runs a kernel that is not split into parts, such as one that computes a size. */
  ask(name: string, ...args: number[]): number {
    return this.kernels[name](...args);
  }

  /**
   * Runs a kernel and waits for it, on all threads if `work`, its number of elementary operations, is large enough.
   * Throws EngineError if a thread failed.
   */
  run(name: string, work: number, ...args: number[]): void {
    const kernel = this.kernels[name];
    if (this.threads === 1 || work < SMALL) {
      kernel(...args, 0, 1);
      return;
    }
    const { state, values } = this;
    values[0] = args.length;
    for (let i = 0; i < args.length; i++) values[i + 1] = args[i];
    state[KERNEL] = this.names.indexOf(name);
    Atomics.store(state, FINISHED, 0);
    this.generation = (this.generation + 1) | 0;
    Atomics.store(state, GENERATION, this.generation);
    Atomics.notify(state, GENERATION);
    kernel(...args, 0, this.threads);
    this.wait(name);
  }

  private wait(name: string): void {
    const { state, threads } = this;
    for (let spins = 0; spins < SPINS; spins++) if (Atomics.load(state, FINISHED) === threads - 1) break;
    const start = performance.now();
    for (let done = Atomics.load(state, FINISHED); done < threads - 1; done = Atomics.load(state, FINISHED)) {
      Atomics.wait(state, FINISHED, done, WAIT_MS);
      if (performance.now() - start > DEADLINE_MS)
        throw new EngineError(
          `a thread of the wasm engine does not respond (${name}); try ${option('threads', 1)}`,
        );
    }
    if (state[FAILED])
      throw new EngineError(`a thread of the wasm engine failed (${name}); try ${option('threads', 1)}`);
  }

  /** The address of at least `bytes` of scratch memory for each thread, shared by all kernels. */
  scratchFor(bytes: number): number {
    const needed = bytes * this.threads;
    if (needed > this.scratch.bytes) {
      if (this.scratch.address) this.free(this.scratch.address);
      this.scratch = { address: 0, bytes: 0 };
      this.scratch = { address: this.allocate(needed), bytes: needed };
    }
    return this.scratch.address;
  }

  /** A view of the memory, which may have grown since the last one. */
  get floats(): Float32Array {
    return new Float32Array(this.memory.buffer);
  }
}
