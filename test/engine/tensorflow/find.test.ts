import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
// @ts-expect-error plain JavaScript, which runs while packages are being installed
import * as native from '../../../src/engine/tensorflow/native/tensorflow.js';

const { findTensorFlow, fingerprint, isTensorFlow } = native;

let folder: string;
const at = (name: string) => join(folder, name);

async function files(contents: Record<string, string>): Promise<void> {
  for (const [name, content] of Object.entries(contents)) {
    await mkdir(dirname(at(name)), { recursive: true });
    await writeFile(at(name), content);
  }
}

const PACKAGES = 'venv/lib/python3.12/site-packages';
const PACKAGE = `${PACKAGES}/tensorflow`;
const versionHeader = (version: string) =>
  version
    .split('.')
    .map((part, i) => `#define TF_${['MAJOR', 'MINOR', 'PATCH'][i]}_VERSION ${part}\n`)
    .join('');

/** Python's package of TensorFlow in a virtual environment. */
const wheel = (changes: Record<string, string> = {}) => ({
  [`${PACKAGE}/include/tensorflow/c/eager/c_api.h`]: '',
  [`${PACKAGE}/include/tensorflow/core/public/version.h`]: versionHeader('2.17.1'),
  [`${PACKAGE}/libtensorflow_cc.so.2`]: 'code',
  [`${PACKAGE}/libtensorflow_framework.so.2`]: 'code',
  [`${PACKAGE}/python/platform/build_info.py`]:
    "build_info = collections.OrderedDict([('is_cuda_build', False)])",
  ...changes,
});

/** An unpacked libtensorflow. */
const LIBTENSORFLOW = {
  'lib tensorflow/include/tensorflow/c/eager/c_api.h': '',
  'lib tensorflow/include/tensorflow/core/public/release_version.h': versionHeader('2.18.0'),
  'lib tensorflow/lib/libtensorflow.so.2': 'code',
  'lib tensorflow/lib/libtensorflow_framework.so.2': 'code',
};

/** Finds a TensorFlow without a name, with a Python that has the given package. */
async function findIn(python: string, system: string[] = []) {
  await files({ 'bin/python3': `#!/bin/sh\necho '${python && at(python)}'\n[ -n '${python}' ]\n` });
  await chmod(at('bin/python3'), 0o755);
  vi.stubEnv('PATH', `${at('bin')}:${process.env.PATH}`);
  return findTensorFlow('', system.map(at));
}

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tensorflow-'));
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(folder, { recursive: true });
});

it.each([
  ['a virtual environment', 'venv'],
  ['a folder of packages', PACKAGES],
  ["the package's folder", PACKAGE],
])('is found in %s', async (_, name) => {
  await files(wheel());
  expect(findTensorFlow(at(name))).toMatchObject({
    path: at(PACKAGE),
    version: '2.17.1',
    cuda: '',
    include: at(`${PACKAGE}/include`),
    libraries: [at(`${PACKAGE}/libtensorflow_cc.so.2`), at(`${PACKAGE}/libtensorflow_framework.so.2`)],
    runPaths: [at(PACKAGE)],
  });
  expect(isTensorFlow(at(name))).toBe(true);
});

it('is found in a libtensorflow, whose CUDA is unknown', async () => {
  await files(LIBTENSORFLOW);
  expect(findTensorFlow(at('lib tensorflow'))).toMatchObject({
    version: '2.18.0',
    cuda: undefined,
    libraries: ['libtensorflow.so.2', 'libtensorflow_framework.so.2'].map((name) =>
      at(`lib tensorflow/lib/${name}`),
    ),
  });
});

it('is found through Python, which does not import it, or where the system has it', async () => {
  await files({ ...wheel(), ...LIBTENSORFLOW });
  expect(await findIn(PACKAGE, ['lib tensorflow'])).toMatchObject({ path: at(PACKAGE) });
  expect(await findIn('gone', ['gone', 'lib tensorflow'])).toMatchObject({ path: at('lib tensorflow') });
  expect(await findIn('gone', ['gone'])).toBeUndefined();
});

it('tells the version of CUDA, and the folders of its libraries', async () => {
  const info = "OrderedDict([('cuda_version', '12.5.1'), ('cudnn_version', '9'), ('is_cuda_build', True)])";
  await files(
    wheel({
      [`${PACKAGE}/python/platform/build_info.py`]: info,
      [`${PACKAGES}/nvidia/cublas/lib/libcublas.so.12`]: '',
      [`${PACKAGES}/nvidia/cudnn/lib/libcudnn.so.9`]: '',
      [`${PACKAGES}/nvidia/cudnn/include/cudnn.h`]: '',
      [`${PACKAGES}/nvidia/__init__.py`]: '',
    }),
  );
  const { cuda, runPaths } = findTensorFlow(at('venv'));
  expect(cuda).toBe('12.5.1');
  const nvidia = (name: string) => at(`${PACKAGES}/nvidia/${name}/lib`);
  expect(runPaths).toEqual([at(PACKAGE), nvidia('cublas'), nvidia('cudnn')]);
});

it('tells the version by the package’s name if the headers do not', async () => {
  await files(
    wheel({
      [`${PACKAGE}/include/tensorflow/core/public/version.h`]: '#error "TF_MAJOR_VERSION is not defined!"',
      [`${PACKAGES}/tensorflow_io_gcs_filesystem-0.37.1.dist-info/METADATA`]: '',
      [`${PACKAGES}/tensorflow_cpu-2.21.0.dist-info/METADATA`]: '',
    }),
  );
  expect(findTensorFlow(at('venv')).version).toBe('2.21.0');
});

const without = (name: string) => rm(at(`${PACKAGE}/${name}`));

it.each([
  [
    'the C library, which old packages lack',
    () => without('libtensorflow_cc.so.2'),
    /^TensorFlow 2\.17\.1 in .*tensorflow has no libtensorflow_cc\.so\.2, without which .*: install a newer one \(pip install -U tensorflow\)$/,
  ],
  [
    'the second library',
    () => without('libtensorflow_framework.so.2'),
    /has no libtensorflow_framework\.so\.2/,
  ],
  [
    'the headers',
    () => without('include/tensorflow/c/eager/c_api.h'),
    /has no .*c\/eager\/c_api\.h: install it again \(pip install --force-reinstall tensorflow\)$/,
  ],
  [
    'a new enough version',
    () => files({ [`${PACKAGE}/include/tensorflow/core/public/version.h`]: versionHeader('2.8.4') }),
    /^TensorFlow 2\.8\.4 in .* is older than 2\.9: install a newer one/,
  ],
])('without %s it is refused, with the remedy', async (_, change, message) => {
  await files(wheel());
  await change();
  expect(() => findTensorFlow(at('venv'))).toThrow(message);
  expect(isTensorFlow(at('venv'))).toBe(false);
  await expect(findIn(PACKAGE)).rejects.toThrow(message);
  await files(LIBTENSORFLOW);
  expect(await findIn(PACKAGE, ['lib tensorflow'])).toMatchObject({ path: at('lib tensorflow') });
});

it('must be where $TENSORFLOW says', async () => {
  await files({ 'empty/file': '' });
  expect(() => findTensorFlow(at('empty'))).toThrow(
    /^TENSORFLOW is .*empty, where no TensorFlow is: name a virtual environment, .*libtensorflow$/,
  );
  await files(LIBTENSORFLOW);
  await rm(at('lib tensorflow/lib/libtensorflow.so.2'));
  expect(() => findTensorFlow(at('lib tensorflow'))).toThrow(
    /has no .*lib\/libtensorflow\.so\.2: unpack libtensorflow again/,
  );
});

it('is told apart from one installed in its place', async () => {
  await files(wheel());
  const before = fingerprint(findTensorFlow(at('venv')));
  expect(fingerprint(findTensorFlow(at('venv')))).toBe(before);
  await files({ [`${PACKAGE}/libtensorflow_cc.so.2`]: 'other code' });
  expect(fingerprint(findTensorFlow(at('venv')))).not.toBe(before);
});
