import { closeSync, openSync, writeSync } from 'node:fs';
import pino from 'pino';
import { prettyFactory } from 'pino-pretty';
import { forCommandLine } from '../../errors.js';
import { outputError } from '../../files/atomic.js';
import type { DebugScope, Reporter } from '../../job/reporter.js';
import { Terminal, type TextStream } from './progress.js';

export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'silent';

/** The command line's reporter: bars and readable log lines for the user, JSON lines for the run folder. */
export interface Log extends Reporter {
  /** From now on everything down to level debug is also appended to this file, and no other, as JSON lines. */
  toFile(path: string): void;
  /** Ends bars and closes the file. */
  close(): void;
}

export interface LogOptions {
  level: LogLevel;
  /** No bars, and of the log only warnings and errors. */
  quiet?: boolean;
  /** Whose debug messages are shown and written, whatever the level is. */
  scopes?: readonly DebugScope[];
  stream?: TextStream;
}

/** Opens the log; every line is written before the call that logs it returns. */
export function openLog({ level, quiet = false, scopes = [], stream = process.stderr }: LogOptions): Log {
  const terminal = new Terminal(stream, quiet);
  const pretty = prettyFactory({
    colorize: stream.isTTY === true && !process.env.NO_COLOR,
    translateTime: 'SYS:HH:MM:ss',
    ignore: 'pid,hostname,scope',
    messageFormat: ({ scope, msg }) => (scope === undefined ? `${msg}` : `${scope}: ${msg}`),
    singleLine: true,
  });
  const shown = { write: (line: string) => terminal.write(pretty(line)) };
  let file: LogFile | undefined;
  const written = { write: (line: string) => file?.write(line) };
  const openLogger = (least: LogLevel) => {
    const streams = pino.multistream([{ stream: written, level: 'debug' }]);
    if (least !== 'silent') streams.add({ stream: shown, level: least });
    return pino({ level: 'debug', base: null }, streams);
  };
  const logger = openLogger(quiet && level !== 'error' && level !== 'silent' ? 'warn' : level);
  const debugLogger = openLogger('debug');
  const debug = (scope: DebugScope, message: string | (() => string)) => {
    if (!scopes.includes(scope)) return;
    debugLogger.debug({ scope }, forCommandLine(typeof message === 'string' ? message : message()));
  };
  return {
    progress: (options) => terminal.progress(options),
    info: (message) => logger.info(forCommandLine(message)),
    warn: (message) => logger.warn(forCommandLine(message)),
    ...(scopes.length > 0 && { debug }),
    toFile(path) {
      file?.close();
      file = new LogFile(path);
    },
    close() {
      terminal.close();
      file?.close();
      file = undefined;
    },
  };
}

/** A file that grows line by line. */
class LogFile {
  private readonly descriptor: number;

  constructor(private readonly path: string) {
    this.descriptor = this.guard(() => openSync(path, 'a'));
  }

  write(line: string): void {
    this.guard(() => writeSync(this.descriptor, line));
  }

  close(): void {
    closeSync(this.descriptor);
  }

  private guard<T>(run: () => T): T {
    try {
      return run();
    } catch (error) {
      throw outputError(this.path, error);
    }
  }
}
