import { existsSync } from 'node:fs';
import { cp, readdir, readFile, rm } from 'node:fs/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { NativeProject } from '../../support/native-project.js';

let project: NativeProject;
const at = (name: string) => project.at(name);
const OUTPUT = 'project/dist/engine/tensorflow/binding.node';
const GPU = 'project/node_modules/@tensorflow/tfjs-node-gpu';
const CPU = 'project/node_modules/@tensorflow/tfjs-node';

beforeAll(async () => {
  project = await NativeProject.create('tensorflow');
  // A Python without TensorFlow, whatever this machine has.
  await project.script('bin/python3', '#!/bin/sh\nexit 1\n');
  await cp(at('bin/python3'), at('bin/python'));
});
afterAll(() => project.remove());

/** A project with both packages, and two TensorFlows: a package of Python and a libtensorflow. */
beforeEach(async () => {
  for (const name of ['one', 'two']) await rm(at(name), { recursive: true, force: true });
  await project.copyScripts({ 'module.cc': 'module', 'quiet.cc': 'quiet' });
  const describe = (name: string) => JSON.stringify({ name, version: '4.22.0' });
  await project.files({
    'project/package.json': JSON.stringify({
      type: 'module',
      peerDependencies: { '@tensorflow/tfjs-node-gpu': '4.22.0' },
    }),
    'project/node_modules/@tensorflow/tfjs/package.json': describe('@tensorflow/tfjs'),
    [`${GPU}/package.json`]: describe('@tensorflow/tfjs-node-gpu'),
    [`${GPU}/binding/tfjs_backend.cc`]: 'a',
    [`${CPU}/package.json`]: describe('@tensorflow/tfjs-node'),
    [`${CPU}/binding/tfjs_backend.cc`]: 'a',
  });
  await project.files({
    'one/tensorflow/include/tensorflow/c/eager/c_api.h': '',
    'one/tensorflow/python/platform/build_info.py': "('is_cuda_build', True), ('cuda_version', '12.5')",
    'one/tensorflow/libtensorflow_cc.so.2': 'code',
    'one/tensorflow/libtensorflow_framework.so.2': 'code',
    'one/nvidia/cublas/lib/libcublas.so.12': '',
    'two/include/tensorflow/c/eager/c_api.h': '',
    'two/lib/libtensorflow.so.2': 'code',
    'two/lib/libtensorflow_framework.so.2': 'code',
  });
});

/** Runs the build where Python has no TensorFlow and npm does not run. */
const run = (library: string, { args = ['--if-found'], env = {} as NodeJS.ProcessEnv } = {}) =>
  project.build(library, {
    args,
    env: { PATH: `${at('bin')}:${process.env.PATH}`, npm_execpath: '', ...env },
  });
const everything = { made: ['module.cc', 'quiet.cc'], status: 0 };
const nothing = { made: [], said: '', status: 0 };
const record = async () => JSON.parse(await readFile(at(`${OUTPUT}.json`), 'utf8'));

describe('the binding', () => {
  it('is built once for a TensorFlow, and again if anything of it changes', async () => {
    const first = await run('one');
    expect(first).toMatchObject(everything);
    expect(first.said).toMatch(
      /^building the tensorflow engine for TensorFlow for CUDA 12\.5 in .*one.tensorflow\nbuilt .*binding\.node against .*; it serves @tensorflow\/tfjs-node-gpu and @tensorflow\/tfjs-node\n$/,
    );
    expect(await readFile(at(OUTPUT), 'utf8')).toBe('module');
    expect(existsSync(`${at(OUTPUT)}.partial`)).toBe(false);
    expect(await run('one')).toEqual(nothing);
    const changes: Record<string, string>[] = [
      { 'one/tensorflow/libtensorflow_cc.so.2': 'other code' },
      { 'one/nvidia/cudnn/lib/libcudnn.so.9': '' },
      { [`${GPU}/binding/tfjs_backend.cc`]: 'b' },
      { 'project/src/engine/tensorflow/native/module.cc': 'another' },
      { [`${GPU}/package.json`]: '{"name": "@tensorflow/tfjs-node-gpu", "version": "4.23.0"}' },
    ];
    for (const change of changes) {
      await project.files(change);
      expect(await run('one'), JSON.stringify(change)).toMatchObject(everything);
      expect(await run('one')).toEqual(nothing);
    }
    await rm(at(OUTPUT));
    expect(await run('one')).toMatchObject(everything);
    expect(await run('one', { args: [] })).toMatchObject(everything); // as often as it is asked for
  });

  it('is built for another TensorFlow, and remembers the one that was named', async () => {
    expect(await run('one')).toMatchObject(everything);
    expect(await record()).toMatchObject({ cuda: '12.5', package: '@tensorflow/tfjs-node-gpu 4.22.0' });
    expect(await run('two')).toMatchObject(everything);
    expect(await record()).toMatchObject({ tensorflow: at('two'), named: at('two') });
    expect(await run('')).toEqual(nothing);
    await project.files({ 'two/lib/libtensorflow.so.2': 'other code' });
    expect(await run('')).toMatchObject(everything);
    await rm(at('two'), { recursive: true });
    expect(await run('')).toEqual(nothing);
  });

  it('finds the libraries of TensorFlow and of its CUDA when it is loaded', async () => {
    await project.script(
      'linker',
      `#!/bin/sh\necho "$@" >> '${at('arguments')}'\nexec '${at('compiler')}' "$@"\n`,
    );
    await run('one', { env: { CXX: at('linker') } });
    const line = (await readFile(at('arguments'), 'utf8'))
      .split('\n')
      .find((text) => /module\.cc/.test(text))!;
    expect(line).toContain(`${at('one/tensorflow/libtensorflow_cc.so.2')} `);
    expect(line).toContain(`-Wl,-rpath,${at('one/tensorflow')} -Wl,-rpath,${at('one/nvidia/cublas/lib')} `);
    expect(line).toContain('-Wl,--disable-new-dtags');
    expect(line).toContain(`-I${at(`${GPU}/binding`)} -I${at('one/tensorflow/include')} `);
    expect(line).toContain('-DALITOK_CUDA="12.5"');
  });

  it('is not built again after a failure, and the one before stays', async () => {
    await run('two');
    await project.files({ 'project/src/engine/tensorflow/native/module.cc': 'error' });
    const failed = await run('two');
    expect(failed.said).toMatch(/build:tensorflow: .*compiler failed:\n.*module\.cc: error: no/);
    expect(failed.status).toBe(1);
    expect(await readFile(at(OUTPUT), 'utf8')).toBe('module');
    expect(await run('two')).toEqual(nothing);
    expect((await run('two', { args: [] })).said).toMatch(/module\.cc: error: no/);
  });

  it('uses the other package if there is only that, and none that brings its own tfjs', async () => {
    await project.files({ [`${GPU}/node_modules/@tensorflow/tfjs/package.json`]: '{"version": "4.22.0"}' });
    expect(await run('one')).toMatchObject(everything);
    expect(await record()).toMatchObject({ package: '@tensorflow/tfjs-node 4.22.0' });
  });
});

describe('what is missing', () => {
  it('a compiler is named, and skipped by setup', async () => {
    const env = { CXX: at('missing') };
    expect(await run('one', { env })).toEqual(nothing);
    expect((await run('one', { args: [], env })).said).toMatch(
      /^build:tensorflow: .*missing cannot be run \(ENOENT\): install one, or set CXX\n$/,
    );
  });

  it('headers of Node.js are named', async () => {
    const env = { NAPI_INCLUDE: at('nowhere') };
    expect((await run('one', { args: [], env })).said).toMatch(
      /^build:tensorflow: NAPI_INCLUDE is .*node_api\.h does not exist\n$/,
    );
  });

  it.runIf(!existsSync('/usr/local/lib/libtensorflow.so.2') && !existsSync('/usr/lib/libtensorflow.so.2'))(
    'a TensorFlow: setup skips it, and the command runs the package’s own download, after saying so',
    async () => {
      expect(await run('')).toEqual(nothing);
      await project.files({
        'project/node_modules/@mapbox/node-pre-gyp/package.json': '{}',
        [`${GPU}/scripts/install.js`]: `
          const fs = require('fs');
          fs.writeFileSync('asked', process.argv.slice(2).join(' '));
          if (process.env.OFFLINE) { console.error('at x\\nError: getaddrinfo ENOTFOUND host\\n at y'); process.exit(1); }
          fs.mkdirSync('lib/napi-v8', { recursive: true });
          fs.writeFileSync('lib/napi-v8/tfjs_binding.node', '');`,
      });
      expect(await run('')).toEqual(nothing);
      expect(existsSync(at(`${GPU}/asked`))).toBe(false);
      const failed = await run('', { args: [], env: { OFFLINE: '1' } });
      expect(failed.said).toMatch(
        /^no TensorFlow was found, so @tensorflow\/tfjs-node-gpu downloads its own: TensorFlow 2\.9\.1 for CUDA 11\.2, hundreds of megabytes.*\nbuild:tensorflow: no TensorFlow was found, and .* \(Error: getaddrinfo ENOTFOUND host\): pip install tensorflow, then run this again\n$/,
      );
      expect(failed.status).toBe(1);
      const done = await run('', { args: [] });
      expect(await readFile(at(`${GPU}/asked`), 'utf8')).toBe('gpu download');
      expect(done.said).toMatch(/the engine uses the one that .* has downloaded \(.*tfjs_binding\.node\)\n$/);
      expect(done.status).toBe(0);
      await rm(at(`${GPU}/asked`));
      expect((await run('', { args: [] })).status).toBe(0); // it is there already
      expect(existsSync(at(`${GPU}/asked`))).toBe(false);
    },
  );

  /** A fake npm, which logs its calls, packs a package, and installs another. */
  const npm = `#!/bin/sh
echo "$@" >> "$ALITOK_LOG"
case $1 in
  pack) mkdir -p package/binding && echo '{"version": "4.22.0", "dependencies": {"@tensorflow/tfjs": "4.22.0", "google-protobuf": "^3.9.2", "tar": "^6"}}' > package/package.json
    echo a > package/binding/tfjs_backend.cc
    tar -czf tensorflow-tfjs-node-gpu-4.22.0.tgz package && rm -r package
    echo '[{"filename": "tensorflow-tfjs-node-gpu-4.22.0.tgz"}]' ;;
  install) cat package.json >> "$ALITOK_LOG"; mkdir -p node_modules/google-protobuf ;;
esac
`;

  it('a package: setup skips it, and the command fetches it into its own folder', async () => {
    for (const name of [GPU, CPU]) await rm(at(name), { recursive: true });
    expect(await run('one')).toEqual(nothing);
    await project.script('bin/npm', npm);
    const fetched = await run('one', { args: [], env: { ALITOK_LOG: at('npm.log') } });
    expect(fetched.said).toMatch(
      /^fetching the package @tensorflow\/tfjs-node-gpu 4\.22\.0 and google-protobuf from npm's registry \(0\.3 MB\) to .*project.dist.engine.tensorflow.package\nbuilding /,
    );
    expect(fetched).toMatchObject(everything);
    const log = await readFile(at('npm.log'), 'utf8');
    expect(log).toMatch(/^pack @tensorflow\/tfjs-node-gpu@4\.22\.0 --json --ignore-scripts /);
    expect(log).toMatch(
      /\ninstall --ignore-scripts .*\n.*"dependencies":\{"google-protobuf":"\^3\.9\.2"\}\}$/,
    );
    expect(existsSync(at(GPU))).toBe(false);
    expect(await run('one')).toEqual(nothing);
    await rm(at('bin/npm'));
  });

  it('a network, too', async () => {
    for (const name of [GPU, CPU]) await rm(at(name), { recursive: true });
    await project.script('bin/npm', '#!/bin/sh\necho "npm error network request failed" >&2\nexit 1\n');
    expect((await run('one', { args: [] })).said).toMatch(
      /\nbuild:tensorflow: npm pack .* failed: npm error network request failed; install @tensorflow\/tfjs-node-gpu .*\n$/,
    );
    await rm(at('bin/npm'));
  });
});

it('the C++ sources and the kernels of both packages are the same, so one binding serves both', async () => {
  const folder = (name: string) => `node_modules/@tensorflow/${name}/binding`;
  const names = await readdir(folder('tfjs-node'));
  expect(names).toContain('tfjs_backend.cc');
  expect(await readdir(folder('tfjs-node-gpu'))).toEqual(names);
  for (const name of names)
    expect(await readFile(`${folder('tfjs-node-gpu')}/${name}`, 'utf8')).toBe(
      await readFile(`${folder('tfjs-node')}/${name}`, 'utf8'),
    );
});
