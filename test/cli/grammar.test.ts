import type { Command } from 'commander';
import { describe, expect, it } from 'vitest';
import { completeDebug } from '../../src/cli/base/options.js';
import { createProgram } from '../../src/cli/program.js';

/** A command and all below it. */
const withThoseBelow = (command: Command): Command[] => [
  command,
  ...command.commands.flatMap((one) => withThoseBelow(one as Command)),
];
const options = withThoseBelow(createProgram()).flatMap((command) =>
  command.options.map(({ long, short, description }) => ({
    command: command.name(),
    long,
    short,
    description,
  })),
);

describe('the options of all commands', () => {
  it('a name has the same letter everywhere, and a letter stands for one name', () => {
    const letters = new Map<string | undefined, Set<string | undefined>>();
    const names = new Map<string | undefined, Set<string | undefined>>();
    for (const { long, short } of options) {
      letters.set(long, (letters.get(long) ?? new Set()).add(short));
      if (short !== undefined) names.set(short, (names.get(short) ?? new Set()).add(long));
    }
    expect([...letters].filter(([, found]) => found.size > 1)).toEqual([]);
    expect([...names].filter(([, found]) => found.size > 1)).toEqual([]);
    expect(names.get('-t')).toEqual(new Set(['--tokenizer']));
    expect(names.get('-n')).toEqual(new Set(['--count']));
  });

  it('each has a description, without a full stop, that starts in lower case or with a name', () => {
    const odd = options.filter(
      ({ description }) => !/^[^A-Z ]|^[A-Z]{3}|^PNG|^YAML|^JSON|^CUDA/.test(description),
    );
    expect(odd).toEqual([]);
    expect(options.filter(({ description }) => description.endsWith('.'))).toEqual([]);
  });
});

describe('--debug without scopes', () => {
  const complete = (line: string) => completeDebug(line.split(' '), ['train-ar', 'curves']).join(' ');
  it.each([
    ['--debug train-ar -r x', '--debug=all train-ar -r x'],
    ['train-ar --debug -r x', 'train-ar --debug=all -r x'],
    ['train-ar -r x --debug', 'train-ar -r x --debug=all'],
    ['train-ar --debug generator.layers=2', 'train-ar --debug=all generator.layers=2'],
    ['inspect --debug runs/a', 'inspect --debug=all runs/a'],
    ['train-ar --debug data,engine -r x', 'train-ar --debug data,engine -r x'],
    ['train-ar --debug engin', 'train-ar --debug engin'], // so that the error can suggest the right scope
  ])('%s', (given, expected) => {
    expect(complete(given)).toBe(expected);
  });
});
