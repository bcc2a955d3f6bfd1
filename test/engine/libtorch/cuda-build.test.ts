import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { loadNative } from '../../../src/engine/libtorch/bridge.js';
// @ts-expect-error plain JavaScript, which runs while packages are being installed
import { findNvcc, kernelText } from '../../../src/engine/libtorch/native/nvcc.js';
import { canRun } from '../../support/engines.js';
import { NativeProject } from '../../support/native-project.js';

const KERNELS = 'src/engine/libtorch/native/cuda';

/** Devices of three generations: ones that the build compiles for, and a newer one. */
const ARCHITECTURES = ['sm_80', 'sm_90', 'sm_100'];

describe('the kernels for CUDA devices', () => {
  it('include nothing, so that every compiler accepts them', async () => {
    const names = (await readdir(KERNELS)).filter((name) => name.endsWith('.cuh'));
    expect(names).toContain('prelude.cuh');
    for (const name of names)
      expect(await readFile(join(KERNELS, name), 'utf8'), name).not.toMatch(/^\s*#\s*(include|import)/m);
  });

  const known = spawnSync('nvcc', ['--list-gpu-code'], { encoding: 'utf8' }).stdout?.split('\n') ?? [];
  it.runIf(known.length > 0).each(ARCHITECTURES)(
    'compile with nvcc for %s',
    async (architecture) => {
      if (!known.includes(architecture)) return; // an older nvcc
      const folder = await mkdtemp(join(tmpdir(), 'kernels-'));
      await writeFile(join(folder, 'kernels.cu'), kernelText(KERNELS));
      const flags = ['-cubin', '-std=c++17', '-O3', '-Werror=all-warnings', '--diag-suppress=177'];
      const { stdout, stderr } = spawnSync('nvcc', [...flags, `-arch=${architecture}`, 'kernels.cu'], {
        cwd: folder,
        encoding: 'utf8',
      });
      expect(`${stdout}${stderr}`).toBe('');
      expect(existsSync(join(folder, 'kernels.cubin'))).toBe(true);
      await rm(folder, { recursive: true });
    },
    300_000,
  );

  const native = canRun('libtorch') ? loadNative() : undefined;
  const compile = native?.find('alitok::cuda_compile', '') ?? null;
  it.runIf(compile !== null).each(ARCHITECTURES)(
    'compile with PyTorch’s NVRTC for %s',
    (architecture) => {
      const said = native!.call(compile!, architecture);
      if (!/invalid value for --gpu-architecture/.test(said)) expect(said).toBe(''); // otherwise NVRTC is too old for it
    },
    300_000,
  );

  it.runIf(compile !== null)('are reported as unusable without a device, with the reason', () => {
    const asked = native!.find('alitok::cuda_kernels', '')!;
    expect(native!.call(asked, 'cpu')).toBe('they are for CUDA devices, not for cpu');
    if (native!.cudaDevices() === 0) expect(native!.call(asked, 'cuda:0')).toMatch(/^there is no .+$/);
    expect(native!.call(compile!, 'sm_1')).toMatch(/^NVRTC: /);
  });
});

describe('the build for CUDA devices', () => {
  let project: NativeProject;
  const at = (name: string) => project.at(name);
  /** A PyTorch with the layout of its Python package, and CUDA's headers beside it. */
  const TORCH = 'packages/torch';
  const OUTPUT = 'project/dist/engine/libtorch/bridge.node';

  /** A fake nvcc of a CUDA version, which logs its calls and rejects sources that contain `error`. */
  const nvcc = (release: string) => `#!/bin/sh
if [ "$1" = --version ]; then echo "Cuda compilation tools, release ${release}, V${release}.1"; exit; fi
while [ $# -gt 1 ]; do
  if [ "$1" = -o ]; then object=$2; shift; fi
  shift
done
echo "nvcc ${release}" >> "${at('compiled')}"
if grep -q error "$1"; then echo 'prelude.cuh(1): error: no'; echo 'prelude.cuh(1): error: no' >&2; exit 1; fi
printf code > "$object"
`;

  beforeAll(async () => {
    project = await NativeProject.create();
    await project.script('12/bin/nvcc', nvcc('12.8'));
    await project.script('13/bin/nvcc', nvcc('13.0'));
    await project.script('broken', '#!/bin/sh\nexit 1\n');
  });
  afterAll(() => project.remove());

  beforeEach(async () => {
    await rm(at('packages'), { recursive: true, force: true });
    await project.copyScripts({
      'a.cc': 'a',
      'cuda/device.cc': 'device',
      'cuda/graph.cc': 'graph',
      'cuda/prelude.cuh': 'first',
      'cuda/pointwise.cuh': 'third',
      'cuda/attention.cuh': 'second',
    });
    await project.files({
      [`${TORCH}/include/ATen/ATen.h`]: '',
      [`${TORCH}/lib/libc10.so`]: '__cxx1112basic_string',
      [`${TORCH}/lib/libc10_cuda.so`]: '\0libcudart.so.13\0',
      [`${TORCH}/lib/libtorch_cuda.so`]: 'code',
      'packages/nvidia/cu13/include/cuda_runtime_api.h': '#define CUDART_VERSION  13000',
    });
  });

  const build = (env: NodeJS.ProcessEnv = {}) =>
    project.build(TORCH, { args: [], env: { CUDACXX: at('13/bin/nvcc'), CUDA_HOME: at('none'), ...env } });
  /** The content of the generated header with the kernels. */
  const header = async () => {
    const text = await readFile(at(`${OUTPUT}.objects/kernels.h`), 'utf8');
    const bytes = (name: string) => {
      const [, list] = new RegExp(`${name}\\[\\] = \\{([^}]*)\\}`).exec(text)!;
      return Buffer.from(list.split(',').slice(0, -1).map(Number)).toString();
    };
    return {
      text: bytes('KERNEL_TEXT'),
      code: bytes('KERNEL_CODE'),
      has: /HAS_KERNEL_CODE = true/.test(text),
    };
  };

  it('uses the first nvcc with the version of the headers', () => {
    const none = { CUDACXX: '', CUDA_HOME: '' };
    const path = process.env.PATH;
    try {
      process.env.PATH = `${at('12/bin')}:${path}`;
      const twelve = { path: 'nvcc', version: expect.stringContaining('release 12.8') };
      expect(findNvcc(12, none)).toEqual(twelve);
      expect(findNvcc(12, { CUDACXX: at('13/bin/nvcc'), CUDA_HOME: at('13') })).toEqual(twelve);
      expect(findNvcc(12, { CUDACXX: at('broken'), CUDA_HOME: at('12') })).toMatchObject({
        path: at('12/bin/nvcc'),
      });
      expect(findNvcc(13, { CUDACXX: at('12/bin/nvcc'), CUDA_HOME: at('13') })).toMatchObject({
        path: at('13/bin/nvcc'),
      });
      expect(findNvcc(99, none)).toBeUndefined();
    } finally {
      process.env.PATH = path;
    }
  });

  it('contains the kernels’ source and nvcc’s code, and recompiles what has changed', async () => {
    const all = ['a.cc', 'cuda-graph.cc.o', 'device.cc', 'graph.cc'];
    const first = await build();
    expect(first.said).toMatch(/built .*, with CUDA kernels for sm_80, sm_90\n$/);
    expect(first.made).toEqual([...all, 'nvcc 13.0']);
    const text =
      '#line 1 "prelude.cuh"\nfirst\n#line 1 "attention.cuh"\nsecond\n#line 1 "pointwise.cuh"\nthird\n';
    expect(await header()).toEqual({ text, code: 'code', has: true });
    expect((await build()).made).toEqual(['cuda-graph.cc.o']);
    const native = 'project/src/engine/libtorch/native';
    await project.files({ [`${native}/cuda/pointwise.cuh`]: 'new' });
    expect((await build()).made).toEqual(['cuda-graph.cc.o', 'device.cc', 'nvcc 13.0']);
    expect((await header()).text).toContain('new');
    await project.script('13/bin/nvcc', nvcc('13.1'));
    expect((await build()).made).toEqual(['cuda-graph.cc.o', 'device.cc', 'nvcc 13.1']);
    const flags = (await readFile(at(`${OUTPUT}.objects/cuda-device.cc.o.txt`), 'utf8')).split('\n');
    expect(flags).toContain(`-idirafter${at('packages/nvidia/cu13/include')}`);
    expect(await readFile(at(`${OUTPUT}.objects/a.cc.o.txt`), 'utf8')).not.toContain('idirafter');
  });

  it('compiles the kernels at first use if there is no nvcc of that version, or it fails', async () => {
    const later = /built .*, with CUDA; CUDA kernels are compiled when they are first used\n/;
    await project.files({
      'packages/nvidia/cu13/include/cuda_runtime_api.h': '#define CUDART_VERSION 99000',
    });
    await project.files({ [`${TORCH}/lib/libc10_cuda.so`]: '\0libcudart-d0da41ae.so.99.0\0' });
    const without = await build();
    expect(without.said).toMatch(later);
    expect(without.made).toEqual(['a.cc', 'cuda-graph.cc.o', 'device.cc', 'graph.cc']);
    expect(await header()).toMatchObject({ code: '\0', has: false });
    await project.files({
      'packages/nvidia/cu13/include/cuda_runtime_api.h': '#define CUDART_VERSION 13000',
    });
    await project.files({ [`${TORCH}/lib/libc10_cuda.so`]: '\0libcudart.so.13\0' });
    await project.files({ 'project/src/engine/libtorch/native/cuda/prelude.cuh': 'error' });
    const failed = await build();
    expect(failed.said).toContain('build:libtorch: nvcc failed: prelude.cuh(1): error: no\n');
    expect(failed.said).toMatch(later);
    expect(failed.status).toBe(0);
  });

  it('continues without kernels if their sources do not compile, or there are no headers', async () => {
    const native = 'project/src/engine/libtorch/native';
    const plain = /built .*, with CUDA\n/;
    await project.files({ [`${native}/cuda/graph.cc`]: 'error' });
    const optional = await build();
    expect(optional.said).toMatch(/with CUDA kernels for/);
    expect(optional.made).toContain('cuda-device.cc.o');
    await project.files({ [`${native}/cuda/device.cc`]: 'error' });
    const refused = await build();
    expect(refused.said).toMatch(/build:libtorch: without CUDA kernels: .*device\.cc: error: no\n/);
    expect(refused.said).toMatch(plain);
    expect(refused.status).toBe(0);
    expect(refused.made).toContain('a.cc.o');
    await project.files({ [`${TORCH}/lib/libc10_cuda.so`]: '\0libcudart.so.12\0' });
    const other = await build();
    expect(other.said).toMatch(
      /without CUDA kernels: the headers of its CUDA are missing \(set CUDA_HOME\)\n/,
    );
    expect(other.said).toMatch(plain);
    expect(other.made).not.toContain('nvcc 13.1');
  });

  it('skips all of this for a libtorch without CUDA', async () => {
    await rm(at(`${TORCH}/lib/libtorch_cuda.so`));
    const { said, made } = await build();
    expect(said).not.toContain('CUDA');
    expect(made).toEqual(['a.cc', 'a.cc.o']);
  });
});
