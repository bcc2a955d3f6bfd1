import { closeSync, openSync, writeSync } from 'node:fs';
import pino from 'pino';
import { prettyFactory } from 'pino-pretty';
import { outputError } from '../formats/atomic.js';
import type { Reporter } from '../train/reporter.js';
import { Terminal, type TextStream } from './progress.js';

export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** The command line's reporter: bars and readable log lines for the user, JSON lines for the run folder. */
export interface Log extends Reporter {
  /** For messages with fields, or of other levels. */
  readonly logger: pino.Logger;
  /** From now on everything down to level debug is also appended to this file as JSON lines. */
  toFile(path: string): void;
  /** Ends bars and closes the file. */
  close(): void;
}

export interface LogOptions {
  level: LogLevel;
  /** No bars, and of the log only warnings and errors. */
  quiet?: boolean;
  stream?: TextStream;
}

/** Opens the log; every line is written before the call that logs it returns. */
export function openLog({ level, quiet = false, stream = process.stderr }: LogOptions): Log {
  const terminal = new Terminal(stream, quiet);
  const pretty = prettyFactory({
    colorize: stream.isTTY === true && !process.env.NO_COLOR,
    translateTime: 'SYS:HH:MM:ss',
    ignore: 'pid,hostname',
    singleLine: true,
  });
  const shown = { write: (line: string) => terminal.write(pretty(line)) };
  const levelShown = quiet && level !== 'error' && level !== 'silent' ? 'warn' : level;
  const streams = pino.multistream([], { levels: { ...pino.levels.values, silent: Number.POSITIVE_INFINITY } });
  streams.add({ stream: shown, level: levelShown });
  const logger = pino({ level: level === 'trace' ? 'trace' : 'debug', base: null }, streams);
  let file: number | undefined;

  return {
    logger,
    progress: (options) => terminal.progress(options),
    info: (message) => logger.info(message),
    warn: (message) => logger.warn(message),
    toFile(path) {
      const descriptor = openForAppend(path);
      file = descriptor;
      const write = (line: string) => {
        try {
          writeSync(descriptor, line);
        } catch (error) {
          throw outputError(path, error);
        }
      };
      streams.add({ stream: { write }, level: 'debug' });
    },
    close() {
      terminal.close();
      if (file !== undefined) closeSync(file);
      file = undefined;
    },
  };
}

function openForAppend(path: string): number {
  try {
    return openSync(path, 'a');
  } catch (error) {
    throw outputError(path, error);
  }
}
