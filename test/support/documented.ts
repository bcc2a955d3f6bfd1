import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** A file of the repository. */
export const repository = (name: string) => fileURLToPath(new URL(`../../${name}`, import.meta.url));

/** The documentation pages: the README first, then those of docs/. */
export const PAGES = [
  'README.md',
  'CONTRIBUTING.md',
  'CHANGELOG.md',
  ...readdirSync(repository('docs'))
    .filter((name) => name.endsWith('.md'))
    .sort()
    .map((name) => `docs/${name}`),
];

export const readPage = (page: string) => readFileSync(repository(page), 'utf8');

/** A fenced block with its language, an indented block after an empty line, or a span of code. */
const CODE = /```(\w*)\n(.*?)```|(?<=\n\n)((?: {4}[^\n]+\n)+)|`([^`]+)`/gs;

/** Code of one language in a page's fenced blocks. */
export const blocksOf = (page: string, language: string): string[] =>
  [...readPage(page).matchAll(CODE)].flatMap(([, name, block]) => (name === language ? [block] : []));

/** A full command line: `alitok` with more than a command's name after it, and no placeholders. */
const isWhole = (span: string) => /^alitok (\S+ )+\S+$/.test(span) && !/[…<]|\b[A-Z]{3,}\b/.test(span);

/**
 * The command lines of a page, in order, without comments and with continued lines joined: each line of its shell
 * blocks, and each inline code span that is a full alitok command.
 */
export function commandLines(page: string): string[] {
  const code = [...readPage(page).matchAll(CODE)].flatMap(([, language, block, indented, span]) => {
    if (span !== undefined) return isWhole(span.replaceAll('\n', ' ')) ? [span.replaceAll('\n', ' ')] : [];
    return language === 'sh' || indented !== undefined ? [block ?? indented] : [];
  });
  return code.flatMap((text) =>
    text
      .replaceAll('\\\n', ' ')
      .split('\n')
      .map((line) =>
        line
          .replace(/(^|\s)#\s.*$/, '')
          .trim()
          .replace(/\s+/g, ' '),
      )
      .filter((line) => line !== ''),
  );
}

/** The words of a command line, without their quotes. */
export const wordsOf = (line: string): string[] =>
  [...line.matchAll(/'([^']*)'|"([^"]*)"|(\S+)/g)].map(([, a, b, c]) => a ?? b ?? c);
