import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import * as tf from '@tensorflow/tfjs';
import { EngineError, Interrupted, option, ProcessError } from '../../errors.js';
import type { LibtorchBackend } from '../libtorch/backend.js';
import type { Argument, TensorId } from '../libtorch/bridge.js';
import type { Group, Pending } from './group.js';
import type { Place } from './place.js';

/** How long one check of unfinished work blocks the event loop, in seconds. */
const LOOK = 0.02;
/** How long a process may stay silent, in seconds. */
const SILENCE = 20;
/** The same once an operation has failed, to find out which process is gone. */
const SILENCE_AFTER_FAILURE = 5;
/** How long one operation may take, in seconds: others may wait while rank 0 draws pictures or writes a checkpoint. */
const WORK = 1800;
/** How long processes wait for each other at the start, in seconds, unless ALITOK_JOIN_TIMEOUT is set. */
const JOIN = 600;
/** How long the process that runs the store stays so that the others can read why it ends, in milliseconds. */
const FAREWELL = 3000;
const PATIENCE = 10_000;

enum Peer {
  Alive,
  Silent,
  Failed,
  Done,
}

const REMEDY = `start all of them again (training continues with ${option('resume')}, with any number of processes)`;

/** Bits of `distributed_backends`. */
const GLOO = 1;
const NCCL = 2;

function joinSeconds(): number {
  const seconds = Number(process.env.ALITOK_JOIN_TIMEOUT);
  return seconds > 0 ? seconds : JOIN;
}

/** Processes that work together over PyTorch's c10d: Gloo on the CPU, NCCL on CUDA devices. */
export class ProcessGroup implements Group {
  readonly rank: number;
  readonly size: number;
  /** Whether other processes are expected to end. */
  private leaving = false;

  private constructor(
    private readonly backend: LibtorchBackend,
    private readonly place: Place,
  ) {
    this.rank = place.rank;
    this.size = place.size;
  }

  /**
   * Joins the other processes. The current engine must be libtorch.
   * @throws EngineError if the engine does not support it
   * @throws ProcessError if others do not join in time (ALITOK_JOIN_TIMEOUT seconds, ten minutes by default)
   */
  static async join(place: Place): Promise<ProcessGroup> {
    if (tf.getBackend() !== 'libtorch')
      throw new EngineError(
        `${place.size} processes need ${option('engine', 'libtorch')}; use that, or one process`,
      );
    const group = new ProcessGroup(tf.backend() as LibtorchBackend, place);
    await group.meet();
    return group;
  }

  private call(name: string, ...args: Argument[]) {
    return this.backend.call(`alitok::distributed_${name}`, ...args);
  }

  private async meet(): Promise<void> {
    const { rank, size, host, port, serves, prefix } = this.place;
    const onCuda = this.backend.device !== 'cpu';
    if ((this.call('backends') & (onCuda ? NCCL : GLOO)) === 0)
      throw new EngineError(
        `this libtorch engine is built without ${onCuda ? 'NCCL' : 'Gloo'}, which several processes need on ${this.backend.device}; install a PyTorch with distributed support and run "npm run build:libtorch" again, or use one process`,
      );
    const backend = onCuda ? 'nccl' : 'gloo';
    const seconds = [joinSeconds(), WORK];
    this.call('join', host, port, rank, size, serves, prefix, seconds, backend, this.backend.device);
    try {
      while (!this.call('joined')) {
        this.check(SILENCE);
        await sleep(10);
      }
    } catch (error) {
      const failure = await this.named(error, (why) => {
        const where = `the ${size} processes at MASTER_ADDR ${host}, MASTER_PORT ${port}`;
        return `rank ${rank} cannot join ${where}: ${why.replace(/^.*?\(\): /, '')}; check that all were started and can reach that port`;
      });
      await this.fail(failure); // the others may be waiting for this process
      throw failure;
    }
  }

  // Operations

  allReduce(tensors: readonly tf.Tensor[]): Pending<tf.Tensor[]> {
    const dtypes = tensors.map(({ dtype }) => dtype);
    const work = this.start(() =>
      this.call(
        'all_reduce',
        tensors.map((x) => this.backend.id(x)),
      ),
    );
    return async () => (await this.finish(work)).map((id, i) => this.wrap(id, dtypes[i]));
  }

  async allGather<T extends tf.Tensor>(tensor: T): Promise<T> {
    const [id] = await this.finish(this.start(() => this.call('all_gather', this.backend.id(tensor))));
    const all = this.wrap(id, tensor.dtype); // (size, rows, …)
    const [, rows, ...rest] = all.shape;
    const joined = all.reshape([this.size * rows, ...rest]);
    all.dispose();
    return joined as T;
  }

  async broadcast<T extends tf.Tensor>(tensor: T, root = 0): Promise<T> {
    const [id] = await this.finish(this.start(() => this.call('broadcast', this.backend.id(tensor), root)));
    return this.wrap(id, tensor.dtype) as T;
  }

  async allGatherBytes(bytes: Uint8Array): Promise<Uint8Array[]> {
    const sizes = new Int32Array((await this.exchange(Int32Array.of(bytes.length))).buffer);
    const longest = sizes.reduce((a, b) => Math.max(a, b));
    if (longest === 0) return Array.from(sizes, () => new Uint8Array());
    const padded = new Uint8Array(longest);
    padded.set(bytes);
    const all = (await this.exchange(padded)) as Uint8Array;
    return Array.from(sizes, (size, rank) => all.subarray(rank * longest, rank * longest + size));
  }

  async broadcastObject<T>(value: T): Promise<T> {
    const own = this.rank === 0 ? new TextEncoder().encode(JSON.stringify(value)) : new Uint8Array();
    const [first] = await this.allGatherBytes(own);
    return JSON.parse(new TextDecoder().decode(first)) as T;
  }

  async any(flag: boolean): Promise<boolean> {
    const flags = await this.exchange(Uint8Array.of(flag ? 1 : 0));
    return flags.some((said) => said !== 0);
  }

  /** Concatenates arrays of one length from all processes, by rank. */
  private async exchange(values: Int32Array | Uint8Array): Promise<Int32Array | Uint8Array> {
    const { native, device } = this.backend;
    const id = native.fromArray(values, [values.length], device);
    try {
      const [all] = await this.finish(this.start(() => this.call('all_gather', id)));
      const read = native.read(all) as Int32Array | Uint8Array;
      native.free(all);
      return read;
    } finally {
      native.free(id);
    }
  }

  private wrap(id: TensorId, dtype: tf.DataType): tf.Tensor {
    return tf.engine().makeTensorFromTensorInfo(this.backend.wrap(id, dtype));
  }

  // Waiting, and finding out which process is missing

  /** Starts an operation; if it throws at once, `finish` reports that like any other error. */
  private start(operation: () => number): () => number {
    let work: number | undefined;
    let failure: unknown;
    try {
      work = operation();
    } catch (error) {
      failure = error;
    }
    return () => {
      if (work === undefined) throw failure;
      return work;
    };
  }

  private async finish(started: () => number): Promise<TensorId[]> {
    const deadline = Date.now() + 1000 * WORK;
    try {
      const work = started();
      while (!this.call('completed', work, LOOK)) {
        this.check(SILENCE);
        if (Date.now() > deadline)
          throw new ProcessError(`the other processes did not take part within ${WORK} seconds; ${REMEDY}`);
        await turn();
      }
      return this.call('take', work) as TensorId[];
    } catch (error) {
      throw await this.named(
        error,
        (why) => `an operation with the other processes failed: ${why}; ${REMEDY}`,
      );
    }
  }

  /** Throws ProcessError if another process has ended, or has been silent for `silence` seconds. */
  private check(silence: number): void {
    const states = this.states(silence);
    const first = (wanted: Peer) => states.indexOf(wanted);
    const failed = first(Peer.Failed);
    if (failed >= 0) throw new ProcessError(this.words(failed));
    const done = first(Peer.Done);
    if (done >= 0 && !this.leaving)
      throw new ProcessError(`rank ${done} has ended before the others; ${REMEDY}`);
    const lost = this.call('store_lost') as number;
    if (lost > 0) {
      const { host, port } = this.place;
      const holder = process.env.TORCHELASTIC_USE_AGENT_STORE === 'True' ? 'the agent' : 'rank 0';
      throw new ProcessError(`${holder}, which keeps the store at ${host}:${port}, is gone; ${REMEDY}`);
    }
    const silent = first(Peer.Silent);
    if (silent >= 0)
      throw new ProcessError(`rank ${silent} has given no sign of life for ${silence} seconds; ${REMEDY}`);
  }

  /** The state of each process, silent after `silence` seconds without a sign; empty until all have joined. */
  private states(silence: number): Peer[] {
    const id = this.call('states', silence) as TensorId;
    const states = [...this.backend.native.read(id)];
    this.backend.native.free(id);
    return states;
  }

  /** Why a process failed, as it told the store. */
  private words(rank: number): string {
    const id = this.call('words', rank) as TensorId;
    const words = new TextDecoder().decode(this.backend.native.read(id) as Uint8Array);
    this.backend.native.free(id);
    return words;
  }

  /** The error that names the rank that caused a failure; if all processes are alive, the message is that of `otherwise`. */
  private async named(error: unknown, otherwise: (why: string) => string): Promise<ProcessError> {
    if (error instanceof ProcessError) return error;
    const deadline = Date.now() + PATIENCE;
    while (this.states(0).length > 1 && Date.now() < deadline) {
      try {
        this.check(SILENCE_AFTER_FAILURE);
      } catch (found) {
        return found as ProcessError;
      }
      await sleep(100);
    }
    return new ProcessError(otherwise((error as Error).message), { cause: error });
  }

  // The end

  async leave(): Promise<void> {
    this.leaving = true;
    await this.any(false); // all have come so far
    if (this.place.serves) await this.untilOthersHaveLeft(PATIENCE);
    this.call('leave');
  }

  async fail(error: unknown): Promise<void> {
    // When they are interrupted, all processes leave together, each after its last work.
    if (error instanceof Interrupted) return this.leave();
    const { message } = error as Error;
    const reason = error instanceof ProcessError ? message : `rank ${this.rank} failed: ${message}`;
    this.call('fail', reason);
    if (this.place.serves) await this.untilOthersHaveLeft(FAREWELL);
  }

  private async untilOthersHaveLeft(milliseconds: number): Promise<void> {
    const deadline = Date.now() + milliseconds;
    while (Date.now() < deadline) {
      const states = this.states(SILENCE);
      if (states.every((state, rank) => rank === this.rank || state !== Peer.Alive)) return;
      await sleep(20);
    }
  }
}
