import { chmod, mkdtemp, readFile, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
// @ts-expect-error plain JavaScript, which runs while packages are being installed
import { CompilerError, compileObjects, NoCompiler } from '../../src/engine/libtorch/native/compile.js';

let folder: string;
const at = (name: string) => join(folder, name);

/** A compiler that notes what it compiles, and copies it; sources that say `error` it refuses. */
const COMPILER = `#!/bin/sh
source=; object=
while [ $# -gt 0 ]; do
  case $1 in
    -c) source=$2; shift ;;
    -o) object=$2; shift ;;
  esac
  shift
done
if grep -q error "$source"; then echo "$source: error: no" >&2; exit 1; fi
basename "$source" >> "$(dirname "$0")/compiled"
cp "$source" "$object"
`;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'native-'));
  await writeFile(at('compiler'), COMPILER);
  await chmod(at('compiler'), 0o755);
});
afterAll(() => rm(folder, { recursive: true }));

/** Makes files older than the objects of the next build, whatever the clock's resolution. */
async function write(name: string, content: string, seconds: number) {
  await writeFile(at(name), content);
  await utimes(at(name), seconds, seconds);
}

async function build(
  flags: Record<string, string[]> = {},
  compiler = at('compiler'),
  conditions = 'version 1',
) {
  await writeFile(at('compiled'), '');
  const sources = ['a.cc', 'b.cc', 'c.cc'].map((name) => ({ file: at(name), flags: flags[name] ?? ['-O3'] }));
  const objects = await compileObjects(compiler, sources, { folder: at('objects'), conditions });
  expect(objects).toEqual(['a.cc.o', 'b.cc.o', 'c.cc.o'].map((name) => at(`objects/${name}`)));
  return (await readFile(at('compiled'), 'utf8')).split('\n').filter(Boolean).sort();
}

const ALL = ['a.cc', 'b.cc', 'c.cc'];
beforeEach(async () => {
  const past = Date.now() / 1000 - 100;
  for (const name of ALL) await write(name, name, past);
  await write('all.h', '', past);
  await rm(at('objects'), { recursive: true, force: true });
});

it('compiles every source once, and then what has changed', async () => {
  expect(await build()).toEqual(ALL);
  expect(await build()).toEqual([]);
  const future = Date.now() / 1000 + 100;
  await write('b.cc', 'another', future);
  expect(await build()).toEqual(['b.cc']);
  expect(await readFile(at('objects/b.cc.o'), 'utf8')).toBe('another');
  await write('all.h', 'int x;', future);
  expect(await build()).toEqual(ALL); // any may include it
});

it('compiles again for other flags, and for another version of what it is built against', async () => {
  await build();
  expect(await build({ 'c.cc': ['-O2'] })).toEqual(['c.cc']);
  expect(await build({ 'c.cc': ['-O2'] }, at('compiler'), 'version 2')).toEqual(ALL);
});

it('says what the compiler said, and keeps no half an object', async () => {
  await writeFile(at('b.cc'), 'error');
  const failed = await build().catch((error) => error);
  expect(failed).toBeInstanceOf(CompilerError);
  expect(failed.message).toMatch(/compiler failed:\n.*b\.cc: error: no/);
  await writeFile(at('b.cc'), 'right');
  expect(await build()).toContain('b.cc');
});

it('says that there is no compiler', async () => {
  const failed = await build({}, at('nowhere')).catch((error) => error);
  expect(failed).toBeInstanceOf(NoCompiler);
  expect(failed.message).toMatch(/nowhere cannot be run \(ENOENT\): install one, or set CXX/);
});
