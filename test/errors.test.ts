import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { ConfigError, DataError, forCommandLine, option } from '../src/errors.js';

const SRC = fileURLToPath(new URL('../src', import.meta.url));

/** Modules whose text is only for users of the command line, or for browsers. */
const OTHERS = /^(cli|doctor|quickstart)\/|^report\/page-style/;
/** Options of other programs, and CSS names. */
const OF_OTHERS = /--(dereference|hard-dereference|check|always|dirty|abbrev|exclude)\b|var\(--/g;

/** Paths of TypeScript sources below src. */
const sourcePaths = () =>
  readdirSync(SRC, { recursive: true, encoding: 'utf8' }).filter(
    (path) => path.endsWith('.ts') && !path.includes('assembly'),
  );

describe('options in messages', () => {
  it('a program sees their names, the command line its flags', () => {
    const error = new DataError(
      `too large; raise ${option('maxPixels')}, or use ${option('engine', 'wasm')}`,
    );
    expect(error.message).toBe("too large; raise maxPixels, or use engine: 'wasm'");
    expect(forCommandLine(error.text)).toBe('too large; raise --max-pixels, or use --engine wasm');
    expect(new ConfigError(`try ${option('threads', 1)}`).message).toBe('try threads: 1');
  });

  it('a message that continues another one keeps them', () => {
    const first = new DataError(`give ${option('size')}`);
    expect(forCommandLine(new DataError(`${first.text}; or not`).text)).toBe('give --size; or not');
  });

  it('no module below the command line writes a flag', () => {
    const sources = sourcePaths().filter((path) => !OTHERS.test(path));
    const found = sources.flatMap((path) =>
      readFileSync(join(SRC, path), 'utf8')
        .split('\n')
        .filter((line) => !/^\s*(\*|\/[/*])/.test(line))
        .filter((line) => /['"`(\s]--[a-z]/.test(line.replace(OF_OTHERS, '')))
        .map((line) => `${path}: ${line.trim()}`),
    );
    expect(sources.length).toBeGreaterThan(150);
    expect(found).toEqual([]);
  });
});
