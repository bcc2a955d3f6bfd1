import { readFile } from 'node:fs/promises';
import { ConfigError, option } from '../../errors.js';
import { type Classes, parseClass } from '../../sample/classes.js';

/** For each own class the class of the initial weights whose row it starts from; undefined for a row that is drawn anew. */
export type ClassMap = readonly (number | undefined)[];

/** A line that begins with #, unless that is the index of a class. */
const COMMENT = /^#(?!\d+\s*=)/;

/**
 * Reads lines `own class = class of the initial weights`; both are names or indices, and `none` on the right is "no class".
 * Empty lines and lines that begin with # are skipped.
 * @throws ConfigError naming file and line
 */
export async function readClassMap(path: string, own: Classes, theirs: Classes): Promise<ClassMap> {
  const flag = `${option('initClasses')} ${path}`;
  const text = await readFile(path, 'utf8').catch((error) => {
    throw new ConfigError(`${flag}: ${error.message}`, { cause: error });
  });
  const map: (number | undefined)[] = new Array(own.count).fill(undefined);
  text.split('\n').forEach((whole, i) => {
    const line = whole.trim(); // which removes a byte order mark, too
    if (line === '' || COMMENT.test(line)) return;
    const where = `${flag}, line ${i + 1}`;
    const parts = line.split('=').map((part) => part.trim());
    if (parts.length !== 2 || parts.includes(''))
      throw new ConfigError(
        `${where}: must have the form \`own class = class of the initial weights\`; write a name with = as its index`,
      );
    const target = parseClass(parts[0], own, where);
    if (target === own.count) throw new ConfigError(`${where}: "no class" is always taken; leave it out`);
    if (map[target] !== undefined) throw new ConfigError(`${where}: ${parts[0]} is mapped twice`);
    map[target] = parseClass(parts[1], theirs, where);
  });
  if (map.every((source) => source === undefined))
    throw new ConfigError(
      `${flag} maps no class; add lines \`own class = class of the initial weights\`, or leave it out`,
    );
  return map;
}
