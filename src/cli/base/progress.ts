import { SingleBar } from 'cli-progress';
import type { Fields, Progress, ProgressOptions } from '../../job/reporter.js';

const BAR_WIDTHS = { least: 10, most: 30 };
/** Kept free at the end of a bar's line, since a terminal prints it there and the line must not wrap. */
const TYPED = '^C';
/** Assumed width of a terminal that does not report its own. */
const COLUMNS = 80;
const FRAMES_A_SECOND = 5;
const PLAIN_INTERVAL_MS = 10_000;

/** The stream for the user: standard error, or a substitute in tests. */
export interface TextStream {
  write(text: string): unknown;
  isTTY?: boolean;
  columns?: number;
}

/** One piece of work being shown. */
interface Work extends ProgressOptions {
  start: number;
  done: number;
  fields: Fields;
  startedAt: number;
}

/** Seconds as 0:07, 12:34 or 1:02:03. */
export function formatDuration(seconds: number): string {
  const whole = Math.round(seconds);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (n: number) => String(n).padStart(2, '0');
  return h > 0 ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

function formatNumber(value: number | string): string {
  if (typeof value === 'string' || Number.isInteger(value)) return String(value);
  const size = Math.abs(value);
  return size >= 1e-3 && size < 1e6 ? String(Number(value.toPrecision(4))) : value.toExponential(2);
}

/** `450/1000 steps`, `12.3 steps/s`, `ETA 0:45`, `loss 0.123`; at the end the time taken instead of the ETA. */
function describe({ done, total, unit, start, startedAt, fields }: Work): string[] {
  const seconds = (performance.now() - startedAt) / 1000;
  const rate = (done - start) / seconds;
  const parts = [`${done}/${total} ${unit}`];
  if (done > start && seconds > 0) {
    parts.push(`${Number(rate.toPrecision(3))} ${unit}/s`);
    parts.push(done < total ? `ETA ${formatDuration((total - done) / rate)}` : formatDuration(seconds));
  }
  for (const [name, value] of Object.entries(fields)) parts.push(`${name} ${formatNumber(value)}`);
  return parts;
}

/**
 * `label [=====     ]  45% 450/1000 steps | …`, with a bar that fills the line. A narrow terminal leaves out whole numbers:
 * first the last fields, then the rate and the ETA. The first field, the loss, stays longest.
 */
function barLine(work: Work, columns = COLUMNS): string {
  const share = work.total > 0 ? Math.min(work.done / work.total, 1) : 1;
  const left = `${work.label} [`;
  const parts = describe(work);
  const right = () => `] ${String(Math.floor(share * 100)).padStart(3)}% ${parts.join(' | ')}`;
  const spare = () => columns - TYPED.length - left.length - right().length;
  while (parts.length > 1 && spare() < BAR_WIDTHS.least) parts.splice(parts.length > 4 ? -1 : 1, 1);
  const room = spare();
  const width = Math.max(BAR_WIDTHS.least, Math.min(BAR_WIDTHS.most, room));
  return left + '='.repeat(Math.floor(share * width)).padEnd(width) + right();
}

/**
 * Text lines with progress below them. On a terminal, progress is a bar on the last line; elsewhere it is a plain line every
 * ten seconds and at the end. `quiet` shows no progress at all.
 */
export class Terminal {
  /** The innermost work is the last one, which is shown. */
  private readonly open: Work[] = [];
  private bar?: SingleBar;
  private lastLine = 0;

  constructor(
    private readonly stream: TextStream,
    private readonly quiet: boolean,
  ) {}

  /** Writes whole lines, above the bar if there is one. */
  write(text: string): void {
    if (!this.bar) {
      this.stream.write(text);
      return;
    }
    this.stream.write(`\r\x1b[2K${text}`);
    this.bar.render();
  }

  progress(options: ProgressOptions): Progress {
    const start = options.start ?? 0;
    const work: Work = { ...options, start, done: start, fields: {}, startedAt: performance.now() };
    this.open.push(work);
    if (this.open.length === 1) this.begin();
    return {
      update: (done, fields = work.fields) => {
        Object.assign(work, { done, fields });
        if (work === this.open.at(-1)) this.show();
      },
      stop: () => {
        const index = this.open.indexOf(work);
        if (index < 0) return;
        if (index === 0) this.end(work);
        this.open.splice(index);
      },
    };
  }

  /** Ends the progress that is still shown, so that the next text starts on a new line. */
  close(): void {
    if (this.open.length > 0) this.end(this.open[0]);
    this.open.length = 0;
  }

  private begin(): void {
    this.lastLine = performance.now();
    if (this.quiet || !this.stream.isTTY) return;
    this.bar = new SingleBar({
      stream: withoutCursorMemory(this.stream),
      format: () => barLine(this.open[this.open.length - 1], this.stream.columns),
      fps: FRAMES_A_SECOND,
      forceRedraw: true,
      linewrap: true,
    });
    this.bar.start(1, 0);
  }

  private show(): void {
    this.bar?.update(0);
    if (this.quiet || this.bar || performance.now() - this.lastLine < PLAIN_INTERVAL_MS) return;
    this.lastLine = performance.now();
    this.plainLine(this.open[this.open.length - 1]);
  }

  private end(outermost: Work): void {
    this.open.splice(1);
    if (this.bar) this.bar.stop();
    else if (!this.quiet) this.plainLine(outermost);
    this.bar = undefined;
  }

  private plainLine(work: Work): void {
    this.stream.write(`${work.label}: ${describe(work).join(' | ')}\n`);
  }
}

/**
 * The bar saves the cursor position when it starts and restores it when it stops, which is wrong after lines have been
 * written above it: this stream drops those two commands.
 */
function withoutCursorMemory(stream: TextStream): NodeJS.WritableStream {
  const wrapped = {
    isTTY: true,
    get columns() {
      return stream.columns;
    },
    write: (text: string) => (text === '\x1b7' || text === '\x1b8' ? true : stream.write(text)),
  };
  return wrapped as unknown as NodeJS.WritableStream;
}
