import { readFile, rm, utimes, writeFile } from 'node:fs/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
// @ts-expect-error plain JavaScript, which runs while packages are being installed
import { CompilerError, compileObjects, NoCompiler } from '../../../src/engine/native/compile.js';
import { NativeProject } from '../../support/native-project.js';

let project: NativeProject;
const at = (name: string) => project.at(name);

beforeAll(async () => {
  project = await NativeProject.create();
});
afterAll(() => project.remove());

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
  return project.compiled();
}

const ALL = ['a.cc', 'b.cc', 'c.cc'];
const files = (contents: Record<string, string>) => project.files(contents);

beforeEach(async () => {
  const past = Date.now() / 1000 - 100;
  for (const name of ALL) await write(name, name, past);
  await write('all.h', '', past);
  await rm(at('objects'), { recursive: true, force: true });
});

it('compiles every source once, and then only the changed ones', async () => {
  expect(await build()).toEqual(ALL);
  expect(await build()).toEqual([]);
  const future = Date.now() / 1000 + 100;
  await write('b.cc', 'another', future);
  expect(await build()).toEqual(['b.cc']);
  expect(await readFile(at('objects/b.cc.o'), 'utf8')).toBe('another');
  await write('all.h', 'int x;', future);
  expect(await build()).toEqual(ALL); // any source may include it
});

it('compiles again for other flags, and for another version of its libraries', async () => {
  await build();
  expect(await build({ 'c.cc': ['-O2'] })).toEqual(['c.cc']);
  expect(await build({ 'c.cc': ['-O2'] }, at('compiler'), 'version 2')).toEqual(ALL);
});

it("prints the compiler's message, and keeps no partial object", async () => {
  await writeFile(at('b.cc'), 'error');
  const failed = await build().catch((error) => error);
  expect(failed).toBeInstanceOf(CompilerError);
  expect(failed.message).toMatch(/compiler failed:\n.*b\.cc: error: no/);
  await writeFile(at('b.cc'), 'right');
  expect(await build()).toContain('b.cc');
});

it('reports a missing compiler', async () => {
  const failed = await build({}, at('nowhere')).catch((error) => error);
  expect(failed).toBeInstanceOf(NoCompiler);
  expect(failed.message).toMatch(/nowhere cannot be run \(ENOENT\): install one, or set CXX/);
});

describe('the bridge', () => {
  const NATIVE = 'project/src/engine/libtorch/native';
  const OUTPUT = 'project/dist/engine/libtorch/bridge.node';

  /** A project with two sources, headers of Node.js, and two libtorches; the second has its version in an included file. */
  beforeEach(async () => {
    for (const name of ['one', 'two']) await rm(at(name), { recursive: true, force: true });
    await project.copyScripts({ 'a.cc': 'a', 'b.cc': 'b' });
    for (const [name, header] of [
      ['one', 'torch/csrc/api/include/torch/version.h'],
      ['two', 'torch/headeronly/version.h'],
    ])
      await files({
        [`${name}/include/ATen/ATen.h`]: '',
        [`${name}/include/torch/csrc/api/include/torch/version.h`]: '#include',
        [`${name}/include/${header}`]: '1.0',
        [`${name}/lib/libc10.so`]: '__cxx1112basic_string',
        [`${name}/lib/libtorch_cpu.so`]: 'code',
      });
  });

  const run = (...args: Parameters<NativeProject['build']>) => project.build(...args);
  const everything = { made: ['a.cc', 'b.cc', 'b.cc.o'], status: 0 };
  const nothing = { made: [], said: '', status: 0 };

  it('is built once for a libtorch, and again if that is replaced in place', async () => {
    expect(await run('two')).toMatchObject(everything);
    expect(await readFile(at(OUTPUT), 'utf8')).toBe('b');
    expect(await run('two')).toEqual(nothing);
    await files({ 'two/include/torch/headeronly/version.h': '1.1' });
    expect(await run('two')).toMatchObject(everything);
    expect(await run('two')).toEqual(nothing);
    await files({ 'two/lib/libtorch_cpu.so': 'other code' });
    expect(await run('two')).toMatchObject(everything);
    await files({ 'two/lib/libtorch_cpu.so': 'later code' });
    await utimes(at('two/lib/libtorch_cpu.so'), 1, 1);
    expect(await run('two')).toMatchObject(everything);
    expect(await run('two')).toEqual(nothing);
    await write(`${NATIVE}/a.cc`, 'new', Date.now() / 1000 + 100);
    expect((await run('two')).made).toEqual(['a.cc', 'b.cc.o']);
    expect(await run('two')).toEqual(nothing);
    await rm(at(OUTPUT));
    expect((await run('two')).made).toContain('b.cc.o');
    // An explicit build always links, and compiles the objects that are out of date.
    await write(`${NATIVE}/a.cc`, 'old', 1);
    await run('two');
    expect((await run('two', { args: [] })).made).toEqual(['b.cc.o']);
  });

  it('is built again for another libtorch, and remembers the one that was named', async () => {
    expect(await run('one')).toMatchObject(everything);
    expect(await run('two')).toMatchObject(everything);
    expect(JSON.parse(await readFile(`${at(OUTPUT)}.json`, 'utf8'))).toMatchObject({
      libtorch: at('two/lib'),
      cuda: false,
    });
    expect(await run('', { env: { CXX: at('another'), NAPI_INCLUDE: at('gone') } })).toEqual(nothing);
    await files({ 'two/lib/libtorch_cpu.so': 'other code' });
    expect(await run('')).toMatchObject(everything);
    expect((await run('')).made).toEqual([]);
  });

  it('is not built again after a failure', async () => {
    await files({ [`${NATIVE}/a.cc`]: 'error' });
    const failed = await run('one');
    expect(failed.said).toMatch(/a\.cc: error: no/);
    expect(failed.status).toBe(1);
    expect(await run('one')).toEqual(nothing);
    expect((await run('one', { args: [] })).said).toMatch(/a\.cc: error: no/);
    await files({ [`${NATIVE}/a.cc`]: 'right' });
    expect((await run('one')).made).toContain('b.cc.o');
  });

  it('is skipped by setup without a compiler', async () => {
    expect(await run('one', { env: { CXX: at('missing') } })).toEqual(nothing);
    const asked = await run('one', { args: [], env: { CXX: at('missing') } });
    expect(asked.said).toMatch(/missing cannot be run \(ENOENT\)/);
    expect(await run('one')).toMatchObject(everything);
  });

  it('is built with the given headers of Node.js', async () => {
    const refused = await run('one', { args: [], env: { NAPI_INCLUDE: at('nowhere') } });
    expect(refused.said).toMatch(/NAPI_INCLUDE is .*nowhere, but .*nowhere\/node_api\.h does not exist/);
    expect(refused.status).toBe(1);
    await files({ 'project/node_modules/node-api-headers/include/node_api.h': '' });
    await run('one', { args: [] });
    const flags = async () => (await readFile(`${at(OUTPUT)}.objects/a.cc.o.txt`, 'utf8')).split('\n');
    expect(await flags()).toContain(`-I${at('napi')}`);
    await run('one', { args: [], env: { NAPI_INCLUDE: '' } });
    expect(await flags()).toContain(`-I${at('project/node_modules/node-api-headers/include')}`);
  });
});
