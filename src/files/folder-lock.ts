import { randomUUID } from 'node:crypto';
import { readFileSync, readlinkSync } from 'node:fs';
import { access, open, readdir, readFile, rm, rmdir, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { OutputError } from '../errors.js';
import { makeFolder, outputError } from './atomic.js';

/** A lock's file name; its middle is random. */
const lockName = () => `.lock-${randomUUID()}.json`;
const LOCK = /^\.lock-[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}\.json$/;

/** Whether a file of a folder is a lock. */
export const isLock = (name: string): boolean => LOCK.test(name);

/** A lock shows every so often that its process lives … */
const BEAT_MS = 5_000;
/** … and one of another machine is void if it does not for so long. */
const WATCH_MS = 45_000;

/** A lock may be seen before its one line is written. */
const WRITTEN_MS = 500;

/** Who holds a folder. */
interface Holder {
  host: string;
  /** Where the process's number means something: this start of the machine, this container. */
  place: string;
  pid: number;
  /** When the kernel started it, on the kernel's own clock; a number that is used again has another. */
  started: string;
}

function orNothing(read: () => string): string {
  try {
    return read().trim();
  } catch {
    return ''; // no Linux
  }
}

const PLACE = {
  boot: orNothing(() => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8')),
  container: orNothing(() => readlinkSync('/proc/self/ns/pid')),
};

/** When a process of this machine was started; undefined where it no longer runs. */
function startOf(pid: number): string | undefined {
  const stat = orNothing(() => readFileSync(`/proc/${pid}/stat`, 'utf8'));
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

/**
 * Touches the lock from a thread of its own, since steps may block this one for minutes. The times count up and are
 * never read as times, so that a clock that stands or jumps does no harm.
 */
const HEART = `
  const { utimesSync } = require('node:fs');
  const { path, every, begin } = require('node:worker_threads').workerData;
  let beat = begin;
  setInterval(() => { try { beat += 1; utimesSync(path, beat, beat); } catch {} }, every);
`;

export interface FolderLock {
  /** @throws OutputError where another process took the folder over, thinking this one dead */
  check(): Promise<void>;
  /** Lets the folder go; it is removed if it was made by the lock and is empty. */
  release(): Promise<void>;
}

export interface LockOptions {
  /** Hears that it takes a while to see whether a process on another machine lives. */
  onWatch?: (message: string) => void;
  watchMs?: number;
}

/**
 * Makes this process the only one that works in a folder, which is made where there is none. The lock of a process that
 * was killed is void: on this machine the kernel says whether it lives; on another one it must be seen to touch its lock.
 * Every process puts up its own lock before it looks for others', so two can both be refused, never both be let in.
 * @throws OutputError where another process is at work there, or the folder cannot be written
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
  try {
    for (const other of await readdir(folder))
      if (isLock(other) && other !== name) await refuseAlive(folder, other, options);
  } catch (error) {
    await release();
    throw error;
  }
  const workerData = { path, every: BEAT_MS, begin: Math.floor(Date.now() / 1000) };
  const heart = new Worker(HEART, { eval: true, workerData });
  heart.unref();
  return {
    async check() {
      await access(path).catch((error) => {
        throw new OutputError(`${folder} was taken over by another process; this one ends without writing`, {
          cause: error,
        });
      });
    },
    async release() {
      await heart.terminate();
      await release();
    },
  };
}

/** Removes a lock whose process is gone. @throws OutputError where it lives */
async function refuseAlive(folder: string, name: string, { onWatch, watchMs }: LockOptions): Promise<void> {
  const path = join(folder, name);
  const holder = await readHolder(path);
  if (holder) {
    const who = `process ${holder.pid} on ${holder.host}`;
    const here = holder.place === self().place;
    if (!here) onWatch?.(`${folder} was in use by ${who}; watching whether that still lives`);
    if (here ? startOf(holder.pid) === holder.started : await beats(path, watchMs ?? WATCH_MS))
      throw new OutputError(`${folder} is in use by ${who}; wait until it ends, or stop it`);
  }
  await rm(path, { force: true });
}

/** Undefined for a lock that was let go meanwhile, or never written whole. */
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

/** Whether somebody touches the lock within a time. */
async function beats(path: string, watchMs: number): Promise<boolean> {
  const first = await touched(path);
  const begun = performance.now();
  while (first !== undefined && performance.now() - begun < watchMs) {
    await delay(Math.min(1000, watchMs / 10));
    const now = await touched(path);
    if (now === undefined) return false;
    if (now !== first) return true;
  }
  return false;
}

/** When a file was last touched; opened first, since network file systems then ask their server. */
async function touched(path: string): Promise<number | undefined> {
  const handle = await open(path).catch(() => undefined);
  const time = (await handle?.stat())?.mtimeMs;
  await handle?.close();
  return time;
}

/** Removes empty folders from `folder` up to `made`, the uppermost that was made. */
async function removeMade(folder: string, made: string | undefined): Promise<void> {
  if (made === undefined) return;
  for (let at = resolve(folder); at.length >= resolve(made).length; at = dirname(at)) {
    try {
      await rmdir(at);
    } catch {
      return; // something is in it
    }
  }
}
