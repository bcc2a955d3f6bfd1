import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { openLog } from '../../src/cli/base/log.js';
import { formatDuration, Terminal } from '../../src/cli/base/progress.js';
import { OutputError } from '../../src/errors.js';

const ESCAPE = '\x1b';
const TOKEN = new RegExp(`${ESCAPE}\\[[?\\d;]*[a-zA-Z]|${ESCAPE}[78]|[\\s\\S]`, 'g');
const COLOUR = new RegExp(`^${ESCAPE}\\[\\d*m$`);

/** A fake standard error that computes what the user sees: lines after applying \r, erasing and cursor moves. */
class Screen {
  lines = [''];
  private column = 0;
  constructor(
    readonly isTTY: boolean,
    readonly columns = 120,
  ) {}

  write(text: string): boolean {
    for (const [token] of text.matchAll(TOKEN)) {
      const last = this.lines.length - 1;
      if (token === '\n') {
        this.lines.push('');
        this.column = 0;
      } else if (token === '\r' || token === '\x1b[1G') this.column = 0;
      else if (token === '\x1b[2K') this.lines[last] = '';
      else if (token === '\x1b[0K') this.lines[last] = this.lines[last].slice(0, this.column);
      else if (COLOUR.test(token)) continue;
      else if (token.startsWith('\x1b')) throw new Error(`unexpected command ${JSON.stringify(token)}`);
      else {
        const line = this.lines[last].padEnd(this.column);
        this.lines[last] = line.slice(0, this.column) + token + line.slice(this.column + 1);
        this.column += 1;
      }
    }
    return true;
  }
}

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

const work = { label: 'stage 1', total: 100, unit: 'steps' };

describe('without a terminal', () => {
  it('progress is a line every ten seconds and at the end', () => {
    const screen = new Screen(false);
    const progress = new Terminal(screen, false).progress(work);
    for (let step = 1; step <= 100; step++) {
      vi.advanceTimersByTime(250);
      progress.update(step, { loss: 1 / step });
    }
    progress.stop();
    progress.stop();
    expect(screen.lines).toEqual([
      'stage 1: 40/100 steps | 4 steps/s | ETA 0:15 | loss 0.025',
      'stage 1: 80/100 steps | 4 steps/s | ETA 0:05 | loss 0.0125',
      'stage 1: 100/100 steps | 4 steps/s | 0:25 | loss 0.01',
      '',
    ]);
  });

  it('computes the rate from the start of this run, and keeps fields until there are new ones', () => {
    const screen = new Screen(false);
    const progress = new Terminal(screen, false).progress({ ...work, start: 60 });
    vi.advanceTimersByTime(10_000);
    progress.update(70, { lr: 1e-5 });
    vi.advanceTimersByTime(10_000);
    progress.update(80);
    progress.stop();
    expect(screen.lines.slice(0, 2)).toEqual([
      'stage 1: 70/100 steps | 1 steps/s | ETA 0:30 | lr 1.00e-5',
      'stage 1: 80/100 steps | 1 steps/s | ETA 0:20 | lr 1.00e-5',
    ]);
  });
});

describe('on a terminal', () => {
  it('the bar stays below lines that are written', () => {
    const screen = new Screen(true);
    const terminal = new Terminal(screen, false);
    const progress = terminal.progress(work);
    vi.advanceTimersByTime(10_000);
    progress.update(50, { loss: 0.5 });
    terminal.write('first\n');
    terminal.write('second\n');
    const bar = `stage 1 [${'='.repeat(15)}${' '.repeat(15)}]  50% 50/100 steps | 5 steps/s | ETA 0:10 | loss 0.5`;
    expect(screen.lines).toEqual(['first', 'second', bar]);
    vi.advanceTimersByTime(10_000);
    progress.update(100);
    progress.stop();
    terminal.write('third\n');
    expect(screen.lines).toEqual([
      'first',
      'second',
      `stage 1 [${'='.repeat(30)}] 100% 100/100 steps | 5 steps/s | 0:20 | loss 0.5`,
      'third',
      '',
    ]);
  });

  it('a nested bar replaces the outer one until it stops', () => {
    const screen = new Screen(true);
    const terminal = new Terminal(screen, false);
    const outer = terminal.progress(work);
    const inner = terminal.progress({ label: 'validation', total: 4, unit: 'images' });
    vi.advanceTimersByTime(1000);
    inner.update(2);
    outer.update(10);
    vi.advanceTimersByTime(1000);
    expect(screen.lines).toHaveLength(1);
    expect(screen.lines[0]).toMatch(/^validation .* 2\/4 images/);
    inner.stop();
    vi.advanceTimersByTime(1000);
    expect(screen.lines[0]).toMatch(/^stage 1 .* 10\/100 steps/);
    outer.stop();
    expect(screen.lines).toHaveLength(2);
  });

  it('a narrow one gets a shorter bar, and then a shorter line', () => {
    for (const [columns, line] of [
      [40, `stage 1 [${' '.repeat(11)}]   0% 0/100 steps`],
      [20, `stage 1 [${' '.repeat(10)}]`.slice(0, 20)],
    ] as const) {
      const screen = new Screen(true, columns);
      new Terminal(screen, false).progress(work).stop();
      expect(screen.lines[0]).toBe(line);
    }
  });

  it('a narrow one shows as many numbers as fit, the loss rather than the rate, and none in part', () => {
    const start = ' 50% 50/100 steps | 5 steps/s | ETA 0:10';
    for (const [columns, end] of [
      [54, ' 50% 50/100 steps | loss 0.1031'],
      [70, ' 50% 50/100 steps | ETA 0:10 | loss 0.1031'],
      [80, `${start} | loss 0.1031`],
      [140, `${start} | loss 0.1031 | psnr 13.13`],
    ] as const) {
      const screen = new Screen(true, columns);
      const progress = new Terminal(screen, false).progress(work);
      vi.advanceTimersByTime(10_000);
      progress.update(50, { loss: 0.1031, psnr: 13.13 });
      progress.stop();
      expect(screen.lines[0]).toMatch(/^stage 1 \[=+ +\] /);
      expect(screen.lines[0].replace(/^.*\] /, '')).toBe(end);
      expect(screen.lines[0].length).toBeLessThanOrEqual(columns - '^C'.length);
    }
  });

  it('close keeps the line, and leaves no timer that keeps the process alive', () => {
    const screen = new Screen(true);
    const terminal = new Terminal(screen, false);
    terminal.progress(work);
    terminal.progress(work);
    terminal.close();
    expect(screen.lines.at(-1)).toBe('');
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe('the log', () => {
  it('is readable, above the bar, and --quiet leaves warnings only', () => {
    vi.setSystemTime(new Date(2024, 0, 1, 12, 30, 5));
    for (const isTTY of [true, false]) {
      const screen = new Screen(isTTY);
      const log = openLog({ level: 'info', scopes: ['run'], stream: screen });
      const progress = log.progress(work);
      log.info('reading images');
      log.debug?.('data', 'unseen');
      log.debug?.('run', () => 'resuming');
      expect(screen.lines.slice(0, 2)).toEqual([
        '[12:30:05] INFO: reading images',
        '[12:30:05] DEBUG: run: resuming',
      ]);
      progress.stop();
      log.close();
    }
    const screen = new Screen(true);
    const log = openLog({ level: 'info', quiet: true, stream: screen });
    log.progress(work).update(5);
    log.info('reading images');
    log.warn('2 files could not be read');
    log.close();
    expect(screen.lines).toEqual(['[12:30:05] WARN: 2 files could not be read', '']);
  });

  it('is written to the run folder as JSON lines, whatever the terminal shows', () => {
    const folder = mkdtempSync(join(tmpdir(), 'alitok-log-'));
    const screen = new Screen(false);
    const read = (name: string) =>
      readFileSync(join(folder, name), 'utf8')
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line));
    const log = openLog({ level: 'silent', stream: screen });
    expect(log.debug).toBeUndefined();
    log.info('before');
    log.toFile(join(folder, 'a.jsonl'));
    log.info('first');
    log.toFile(join(folder, 'b.jsonl'));
    log.warn('second');
    log.toFile(join(folder, 'a.jsonl'));
    log.info('third');
    log.close();
    log.info('after the end');
    expect(read('a.jsonl')).toMatchObject([
      { level: 30, msg: 'first' },
      { level: 30, msg: 'third' },
    ]);
    expect(read('b.jsonl')).toMatchObject([{ level: 40, msg: 'second' }]);
    expect(screen.lines).toEqual(['']);
    expect(() => log.toFile(join(folder, 'a.jsonl/b'))).toThrow(OutputError);
    rmSync(folder, { recursive: true });
  });
});

it.each([
  [0.4, '0:00'],
  [59.6, '1:00'],
  [754, '12:34'],
  [3723, '1:02:03'],
  [360_000, '100:00:00'],
])('%d seconds read %s', (seconds, text) => {
  expect(formatDuration(seconds)).toBe(text);
});
