import { randomUUID } from 'node:crypto';
import { existsSync, readFileSync, readlinkSync } from 'node:fs';
import { access, open, readdir, readFile, rm, rmdir, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { OutputError } from '../errors.js';
import { makeFolder, outputError } from './atomic.js';
import type { HeartbeatData } from './heartbeat.js';

// Packages such as proper-lockfile judge a lock by its age, and touch it from the main thread: they would take it from a process
// whose steps block for minutes, or when a clock jumps.

/** A lock's file name; its middle is random. */
const lockName = () => `.lock-${randomUUID()}.json`;
const LOCK = /^\.lock-[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}\.json$/;

/** Whether a file is a lock, by its name. */
export const isLock = (name: string): boolean => LOCK.test(name);

/** How often a process touches its lock. */
const BEAT_MS = 5_000;
/** A lock of another machine that is not touched for this long is void. */
const WATCH_MS = 45_000;

/** A new lock may be seen for this long before its one line is written. */
const WRITTEN_MS = 500;

/** The worker's compiled file: beside this one, or in dist when this one runs from the sources. */
const HEARTBEAT = ['./heartbeat.js', '../../dist/files/heartbeat.js']
  .map((path) => new URL(path, import.meta.url))
  .find((url) => existsSync(url));

/** Who holds a folder. */
interface Holder {
  host: string;
  /** Where the process ID is valid: this boot of the machine, this container. */
  place: string;
  pid: number;
  /** When the kernel started the process, on the kernel's own clock: tells apart processes with the same ID. */
  started: string;
}

function readOrEmpty(read: () => string): string {
  try {
    return read().trim();
  } catch {
    return ''; // not on Linux
  }
}

const PLACE = {
  boot: readOrEmpty(() => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8')),
  container: readOrEmpty(() => readlinkSync('/proc/self/ns/pid')),
};

/** When a process of this machine was started; undefined if it is not running. */
function startOf(pid: number): string | undefined {
  const stat = readOrEmpty(() => readFileSync(`/proc/${pid}/stat`, 'utf8'));
  if (stat !== '') return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  if (PLACE.boot !== '') return undefined;
  try {
    process.kill(pid, 0);
    return '';
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM' ? '' : undefined;
  }
}

function self(): Holder {
  const place = PLACE.boot === '' ? hostname() : `${PLACE.boot} ${PLACE.container}`;
  return { host: hostname(), place, pid: process.pid, started: startOf(process.pid) ?? '' };
}

function startHeartbeat(path: string): Worker {
  if (!HEARTBEAT) throw new OutputError('dist/files/heartbeat.js is missing; run "npm run build"');
  const workerData: HeartbeatData = { path, intervalMs: BEAT_MS, first: Math.floor(Date.now() / 1000) };
  const heartbeat = new Worker(HEARTBEAT, { workerData });
  heartbeat.unref();
  return heartbeat;
}

export interface FolderLock {
  /** @throws OutputError if another process took the folder over because it found this one dead */
  check(): Promise<void>;
  /** Releases the folder, and removes it if the lock created it and it is empty. */
  release(): Promise<void>;
}

export interface LockOptions {
  /** Called when finding out whether a process on another machine is alive takes a while. */
  onWatch?: (message: string) => void;
  watchMs?: number;
}

/**
 * Makes this process the only one that works in a folder, which is created if needed. The lock of a process that was
 * killed is void: on this machine the kernel tells whether the process is alive; a process on another machine must be seen
 * to touch its lock. Every process creates its own lock before it looks for others, so two can both be refused but never
 * both be admitted.
 * @throws OutputError if another process works there, or the folder cannot be written
 */
export async function lockFolder(folder: string, options: LockOptions = {}): Promise<FolderLock> {
  const name = lockName();
  const path = join(folder, name);
  const made = await makeFolder(folder);
  try {
    await writeFile(path, JSON.stringify(self()), { flag: 'wx' });
  } catch (error) {
    await removeMade(folder, made);
    throw outputError(folder, error);
  }
  const release = async () => {
    await rm(path, { force: true });
    await removeMade(folder, made);
  };
  let heartbeat: Worker;
  try {
    for (const other of await readdir(folder))
      if (isLock(other) && other !== name) await refuseAlive(folder, other, options);
    heartbeat = startHeartbeat(path);
  } catch (error) {
    await release();
    throw error;
  }
  return {
    async check() {
      await access(path).catch((error) => {
        throw new OutputError(`${folder} was taken over by another process; this one ends without writing`, {
          cause: error,
        });
      });
    },
    async release() {
      await heartbeat.terminate();
      await release();
    },
  };
}

/** Removes the lock of a process that is gone. @throws OutputError if the process is alive */
async function refuseAlive(folder: string, name: string, { onWatch, watchMs }: LockOptions): Promise<void> {
  const path = join(folder, name);
  const holder = await readHolder(path);
  if (holder) {
    const who = `process ${holder.pid} on ${holder.host}`;
    const here = holder.place === self().place;
    if (!here) onWatch?.(`${folder} was in use by ${who}; checking whether that process is still alive`);
    if (here ? startOf(holder.pid) === holder.started : await beats(path, watchMs ?? WATCH_MS))
      throw new OutputError(`${folder} is in use by ${who}; wait until it ends, or stop it`);
  }
  await rm(path, { force: true });
}

/** Undefined for a lock that was released meanwhile, or never completely written. */
async function readHolder(path: string): Promise<Holder | undefined> {
  for (let waited = 0; waited <= WRITTEN_MS; waited += 100) {
    const text = await readFile(path, 'utf8').catch(() => undefined);
    if (text === undefined) return undefined;
    try {
      return JSON.parse(text) as Holder;
    } catch {
      await delay(100);
    }
  }
  return undefined;
}

/** Whether a lock is touched within `watchMs`. */
async function beats(path: string, watchMs: number): Promise<boolean> {
  const first = await modified(path);
  const begun = performance.now();
  while (first !== undefined && performance.now() - begun < watchMs) {
    await delay(Math.min(1000, watchMs / 10));
    const now = await modified(path);
    if (now === undefined) return false;
    if (now !== first) return true;
  }
  return false;
}

/** A file's modification time. The file is opened first, because network file systems then ask their server. */
async function modified(path: string): Promise<number | undefined> {
  const handle = await open(path).catch(() => undefined);
  const time = (await handle?.stat())?.mtimeMs;
  await handle?.close();
  return time;
}

/** Removes empty folders from `folder` up to `made`, the topmost one that was created. */
async function removeMade(folder: string, made: string | undefined): Promise<void> {
  if (made === undefined) return;
  for (let at = resolve(folder); at.length >= resolve(made).length; at = dirname(at)) {
    try {
      await rmdir(at);
    } catch {
      return; // not empty
    }
  }
}
