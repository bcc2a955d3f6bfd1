import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ConfigError } from '../../src/errors.js';
import { classLabels, className, parseClasses, readClassNames } from '../../src/sample/classes.js';

const NAMES = ['tench, Tinca tinca', 'goldfish', 'Great White', 'crane', 'crane', '2'];
const parse = (list: string, names = NAMES) => parseClasses(list, { names, count: names.length });

it('accepts names and indices', () => {
  expect(parse('goldfish,3')).toEqual([1, 3]);
  expect(parse(' great white , 0')).toEqual([2, 0]);
  expect(parseClasses(undefined, { names: [], count: 3 })).toEqual([0, 1, 2]);
});

it('accepts names that contain a comma', () => {
  expect(parse('tench, Tinca tinca')).toEqual([0]);
  expect(parse('goldfish,tench, tinca tinca,#4')).toEqual([1, 0, 4]);
});

it('accepts every name that a folder can have', () => {
  const names = ['a', 'a,b', 'a, b', 'b', '日本', 'with space', '-dash', "it's", '#1', 'x,,y', ','];
  for (const [i, name] of names.entries()) expect(parse(name, names), name).toEqual([i]);
  expect(parse(names.slice(4).join(','), names)).toEqual([4, 5, 6, 7, 8, 9, 10]);
  expect(parse('#0,#3', names)).toEqual([0, 3]); // not "a,b"
  expect(() => parse('A , B', names)).toThrow(/2 classes have the name A , B; .* #1, #2$/);
});

it.each([
  ['goldfsh', /there is no class goldfsh; classes are 0 to 5; did you mean goldfish\?$/],
  ['6', /there is no class 6; classes are 0 to 5/],
  ['-1', /there is no class -1/],
  ['1.5', /there is no class 1\.5/],
  ['', /there is no class ;/],
  ['crane', /2 classes have the name crane; give one of their indices, #3, #4$/],
  ['2', /2 is both the name of class 5 and an index; write #5 for the name, or #2 for the index$/],
  ['zzzzzz', /there is no class zzzzzz.*or names such as tench, Tinca tinca, goldfish/],
])('%j says what is wrong', (list, message) => {
  expect(() => parse(list)).toThrow(ConfigError);
  expect(() => parse(list)).toThrow(message);
});

describe('no class', () => {
  it('is none, alone or in a list: the index after the last class', () => {
    expect(parse('none')).toEqual([6]);
    expect(parse('None, 3,#none ,goldfish')).toEqual([6, 3, 6, 1]);
    expect(parseClasses('none,3', { names: [], count: 1000 })).toEqual([1000, 3]);
    expect(() => parse('#6')).toThrow('there is no class #6');
  });

  it('is #none where a class has the name none', () => {
    const names = ['a', 'none', 'none, other'];
    expect(parse('#none', names)).toEqual([3]);
    expect(parse('#1,#NONE,a', names)).toEqual([1, 3, 0]);
    expect(parse('none, other', names)).toEqual([2]);
    expect(() => parse('none', names)).toThrow(
      'classes: none is the name of class 1, but also stands for no class; write #1 for the name, or #none for images without a class',
    );
    expect(() => parse('none', ['NONE', 'None'])).toThrow(
      'classes: 2 classes have the name none; give one of their indices, #0, #1, or #none for images without a class',
    );
    expect(parse('#none', ['#none'])).toEqual([1]);
  });

  it('has a name of its own', () => {
    expect([0, 1, 2].map((c) => className(c, { names: ['a'], count: 2 }))).toEqual(['a', 'class-1', 'none']);
    expect([0, 1].map((c) => className(c, { names: ['None'], count: 1 }))).toEqual(['None', '#none']);
  });
});

it('labels pictures, except where the only class has no name', () => {
  expect(classLabels([1, 0, 2], { names: ['a'], count: 2 })).toEqual(['class-1', 'a', 'none']);
  for (const names of [[], ['']]) {
    expect(classLabels([0, 0], { names, count: 1 })).toEqual([]);
    expect(classLabels([0, 1], { names, count: 1 })).toEqual(['class-0', 'none']);
    expect(classLabels([1], { names, count: 1 })).toEqual(['none']);
  }
  expect(classLabels([0], { names: ['a'], count: 1 })).toEqual(['a']);
  expect(() => parseClasses('cat', { names: [''], count: 1 })).toThrow(
    'there is no class cat; the only class is 0; this generator has no class names',
  );
});

it('says where names come from when there are none', () => {
  expect(() => parseClasses('goldfish', { names: [], count: 1000 })).toThrow(
    /has no class names; give them with classNames/,
  );
});

it('reads names from a file, and refuses too few', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'alitok-classes-'));
  const path = join(folder, 'names.txt');
  await writeFile(path, 'a\r\nb c\n');
  expect(await readClassNames(path, 2)).toEqual(['a', 'b c']);
  await expect(readClassNames(path, 3)).rejects.toThrow('has 2 lines, but the generator has 3 classes');
  await expect(readClassNames(join(folder, 'none'), 3)).rejects.toThrow(ConfigError);
  await rm(folder, { recursive: true });
});
