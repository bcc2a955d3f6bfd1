import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Command } from 'commander';
import { describe, expect, it } from 'vitest';
import { createProgram } from '../../src/cli/program.js';

const ROOT = join(import.meta.dirname, '../..');
const pages = ['README.md', ...readdirSync(join(ROOT, 'docs')).map((name) => `docs/${name}`)].filter((name) =>
  name.endsWith('.md'),
);
const read = (page: string) => readFileSync(join(ROOT, page), 'utf8');

/** The lines of a page's shell blocks that call alitok, continued ones joined, as words. */
function commandsOf(page: string): string[][] {
  const blocks = [...read(page).matchAll(/```sh\n(.*?)```/gs)].map(([, block]) =>
    block.replaceAll('\\\n', ' '),
  );
  const lines = blocks.flatMap((block) => block.split('\n'));
  const words = lines.map((line) =>
    [...line.matchAll(/'([^']*)'|"([^"]*)"|(\S+)/g)].map(([, a, b, c]) => a ?? b ?? c),
  );
  return words.flatMap((line) => {
    const start = line.indexOf('alitok');
    if (start < 0 || line[0].startsWith('#') || line[0] === 'npm') return [];
    const comment = line.findIndex((word) => word.startsWith('#'));
    return [line.slice(start + 1, comment < 0 ? undefined : comment)];
  });
}

/** What a command line says that the program does not know. */
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

describe.each(pages)('%s', (page) => {
  it('links to what is there', () => {
    const links = [...read(page).matchAll(/\]\(([^)#\s]+)(?:#[^)]*)?\)/g)].map(([, link]) => link);
    const broken = links.filter(
      (link) => !/^https?:/.test(link) && !existsSync(join(ROOT, dirname(page), link)),
    );
    expect(broken).toEqual([]);
  });

  it('names commands and options that there are', () => {
    for (const words of commandsOf(page))
      expect([words.join(' '), unknownIn(words)]).toEqual([words.join(' '), []]);
  });
});

it('finds the commands of the pages', () => {
  expect(pages.flatMap(commandsOf).length).toBeGreaterThan(30);
  expect(unknownIn(['sample', '--generatr', 'x'])).toContain('--generatr');
  expect(unknownIn(['smaple'])).toEqual(['smaple']);
});
