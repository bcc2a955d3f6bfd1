import { existsSync, writeFileSync } from 'node:fs';
import { Session } from 'node:inspector';
import { resolve } from 'node:path';

/** A CPU profile that is being recorded. */
export interface Recording {
  /**
   * Ends it and writes it, if that was not done before; gives the file's path.
   * @throws the system's error where it cannot be written
   */
  finish(): string | undefined;
}

/** A name in the current folder that no file has yet. */
function freeName(command: string): string {
  const time = new Date().toISOString().slice(0, 19).replaceAll(':', '-');
  const rank = process.env.RANK === undefined ? '' : `-rank${process.env.RANK}`;
  const stem = `alitok-${command}-${time}${rank}`;
  for (let i = 1; ; i++) {
    const name = `${stem}${i === 1 ? '' : `-${i}`}.cpuprofile`;
    if (!existsSync(name)) return resolve(name);
  }
}

/**
 * Records where this process's main thread spends its time. However the process ends, by an error, a signal or
 * `process.exit`, the profile is written; only a SIGKILL or a crash of native code loses it.
 * @param command its name in the file's name, such as `train-ar`
 */
export function startProfile(command: string): Recording {
  const session = new Session();
  session.connect();
  session.post('Profiler.enable');
  session.post('Profiler.start');
  let finished = false;
  const finish = (): string | undefined => {
    if (finished) return undefined;
    finished = true;
    process.off('exit', atExit);
    for (const signal of SIGNALS) process.off(signal, onSignal);
    // A session with its own thread answers before `post` returns.
    let text = '';
    session.post('Profiler.stop', (_, result) => {
      text = JSON.stringify(result.profile);
    });
    session.disconnect();
    const path = freeName(command);
    writeFileSync(path, text, { flag: 'wx' });
    return path;
  };
  const atExit = () => {
    try {
      process.stderr.write(`CPU profile in ${finish()}\n`);
    } catch (error) {
      process.stderr.write(`the CPU profile could not be written: ${(error as Error).message}\n`);
    }
  };
  /** Where nothing else handles a signal, it would end the process at once. */
  const onSignal = (signal: NodeJS.Signals) => {
    if (process.listenerCount(signal) > 1) return;
    atExit();
    process.kill(process.pid, signal);
  };
  process.on('exit', atExit);
  for (const signal of SIGNALS) process.on(signal, onSignal);
  return { finish };
}

const SIGNALS = ['SIGINT', 'SIGTERM'] as const;
