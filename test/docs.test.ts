import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Command } from 'commander';
import { describe, expect, it } from 'vitest';
import { createProgram } from '../src/cli/program.js';
import { commandLines, PAGES, readPage, repository, wordsOf } from './support/documented.js';

/** The arguments of alitok in a page's commands, also where another program starts it. */
const commandsOf = (page: string): string[][] =>
  commandLines(page).flatMap((line) => {
    const words = wordsOf(line).flatMap((word) => (word.startsWith('alitok ') ? wordsOf(word) : [word]));
    const start = words[0] === 'npm' ? -1 : words.indexOf('alitok'); // for npm it is a package
    return start < 0 ? [] : [words.slice(start + 1)];
  });

/** The parts of a command line that the program does not know. */
function unknownIn(words: string[]): string[] {
  let command: Command = createProgram();
  let rest = command.parseOptions(words);
  for (;;) {
    const [name] = rest.operands;
    const next = command.commands.find((one) => one.name() === name || one.aliases().includes(name));
    if (!next) return command.commands.length > 0 ? [name ?? 'no command'] : rest.unknown;
    command = next;
    // Options of the whole program may stand anywhere.
    const own = command.parseOptions([...rest.operands.slice(1), ...rest.unknown]);
    rest = { operands: own.operands, unknown: createProgram().parseOptions(own.unknown).unknown };
    if (command.name() === 'launch')
      return unknownIn(rest.operands.concat(rest.unknown).filter((w) => w !== '--'));
  }
}

describe.each(PAGES)('%s', (page) => {
  it('has no broken links', () => {
    const links = [...readPage(page).matchAll(/\]\(([^)#\s]+)(?:#[^)]*)?\)/g)].map(([, link]) => link);
    const broken = links.filter(
      (link) => !/^https?:/.test(link) && !existsSync(repository(`${dirname(page)}/${link}`)),
    );
    expect(broken).toEqual([]);
  });

  it('names only existing commands and options', () => {
    for (const words of commandsOf(page))
      expect([words.join(' '), unknownIn(words)]).toEqual([words.join(' '), []]);
  });
});

/** The examples of a command's help, and of the commands below it. */
function examplesOf(command: Command): string[] {
  let help = '';
  command.configureOutput({
    writeOut: (text) => {
      help += text;
    },
  });
  command.outputHelp();
  const own = [...help.matchAll(/^ +\$ alitok (.*)$/gm)].map(([, words]) => words);
  return [...own, ...command.commands.flatMap((one) => examplesOf(one as Command))];
}

it('examples in the help name only existing commands and options', () => {
  const examples = examplesOf(createProgram());
  expect(examples.length).toBeGreaterThan(20);
  expect(examples.filter((line) => unknownIn(wordsOf(line)).some((word) => word !== '--help'))).toEqual([]);
});

it('finds the commands of the pages', () => {
  expect(PAGES.flatMap(commandsOf).length).toBeGreaterThan(30);
  expect(unknownIn(['sample', '--generatr', 'x'])).toContain('--generatr');
  expect(unknownIn(['smaple'])).toEqual(['smaple']);
});
