import { execFile } from 'node:child_process';
import { copyFile, mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import sharp from 'sharp';
import { beforeAll, describe, expect, it } from 'vitest';
import { succeed, temporaryFolder } from './alitok.js';

const run = promisify(execFile);
const at = await temporaryFolder();
const repository = (name: string) => fileURLToPath(new URL(`../../${name}`, import.meta.url));
const fixture = (name: string) => repository(`test/fixtures/${name}`);

interface Packed {
  filename: string;
  size: number;
  files: { path: string }[];
}
let packed: Packed;

/** The JavaScript of docs/library.md. */
async function documented(): Promise<string[]> {
  const text = await readFile(repository('docs/library.md'), 'utf8');
  return [...text.matchAll(/```js\n(.*?)```/gs)].map(([, code]) => code);
}

const node = (...args: string[]) => run(process.execPath, args, { cwd: at('project') });

/** An empty project with the packed package and its dependencies, as `npm install` would leave it. */
async function installPackage(): Promise<void> {
  await run('tar', ['-xzf', at(packed.filename), '-C', at()]);
  await mkdir(at('project/node_modules'), { recursive: true });
  await run('mv', [at('package'), at('project/node_modules/alitok')]);
  const { packages } = JSON.parse(await readFile(repository('package-lock.json'), 'utf8'));
  for (const [path, { dev, optional }] of Object.entries<{ dev?: boolean; optional?: boolean }>(packages)) {
    const nested = path.lastIndexOf('node_modules/') > 0; // inside another package, which is linked
    if (path === '' || nested || dev || (optional && !path.includes('@img'))) continue;
    await mkdir(dirname(at('project', path)), { recursive: true });
    await symlink(repository(path), at('project', path));
  }
}

beforeAll(async () => {
  const { stdout } = await run('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', at()], {
    cwd: repository('.'),
    maxBuffer: 2 ** 26,
  });
  packed = Object.values(JSON.parse(stdout))[0] as Packed;
  await installPackage();
  const heads = ['tokenizer.encoder.heads=3', 'tokenizer.decoder.heads=4'];
  await succeed('convert', fixture('goldens/tokenizer_stage2.pth'), at('project/AliTok.pth'), ...heads);
  await copyFile(fixture('goldens/generator.bin'), at('project/alitok_b.bin'));
  await mkdir(at('project/photos/test'), { recursive: true });
  for (const copy of ['goldfish.jpg', 'photos/test/goldfish.jpg'])
    await copyFile(fixture('preprocess/n01443537_goldfish.JPEG'), at('project', copy));
});

describe('the package', () => {
  it('contains only the files needed to run and to build the optional engines', () => {
    const paths = packed.files.map(({ path }) => path);
    for (const path of [
      'bin/alitok.js',
      'bin/fonts.conf',
      'dist/index.js',
      'dist/index.d.ts',
      'configs/alitok_b.yaml',
      'LICENSE',
    ])
      expect(paths).toContain(path);
    expect(paths).toContain('dist/files/heartbeat.js');
    for (const path of ['libtorch/native/bridge.cc', 'tensorflow/native/module.cc', 'native/compile.js'])
      expect(paths).toContain(`src/engine/${path}`);
    expect(
      paths.filter((path) => /^test|\.map$|\.node|node_modules|^docs|\.ts$(?<!\.d\.ts)/.test(path)),
    ).toEqual([]);
    expect(packed.size).toBeLessThan(2e6);
  });

  it('runs the documented example, which samples the same images as the command', async () => {
    const [example, evaluation] = await documented();
    const few = example.replaceAll('207', '7'); // the model has ten classes
    await writeFile(at('project/example.mjs'), few.replace("'auto'", "'wasm'"));
    const { stdout } = await node('example.mjs');
    expect(stdout).toMatch(/wasm/);
    const pixels = (...names: string[]) =>
      sharp(at('project', ...names))
        .raw()
        .toBuffer();
    const [drawn, again, other] = [
      await pixels('sample-0.png'),
      await pixels('sample-1.png'),
      await pixels('sample-2.png'),
    ];
    expect(again.equals(other)).toBe(false);
    const models = ['-g', at('project/alitok_b.bin'), '--tokenizer', at('project/AliTok.pth')];
    await succeed('sample', ...models, '--classes', '1', '--per-class', '1', '-o', at('project/command'));
    const commanded = await pixels('command/images/000000-class-1.png');
    expect(drawn.equals(commanded)).toBe(true);
    expect((await sharp(at('project/reconstruction.png')).metadata()).width).toBe(32);

    await writeFile(at('project/evaluation.mjs'), evaluation.replace('openEngine()', "openEngine('wasm')"));
    const [psnr, usage] = (await node('evaluation.mjs')).stdout.trim().split(' ').map(Number);
    expect(psnr).toBeGreaterThan(0);
    expect(usage).toBeGreaterThan(0);
  });

  it('reports invalid arguments', async () => {
    await writeFile(
      at('project/wrong.mjs'),
      `import { openEngine, openGenerator, openTokenizer } from 'alitok';
      await openEngine('wasm');
      const tokenizer = await openTokenizer('AliTok.pth');
      const generator = await openGenerator('alitok_b.bin', tokenizer);
      const grey = { width: 16, height: 32, data: new Uint8Array(1536) };
      for (const wrong of [
        () => tokenizer.encode([grey]),
        () => tokenizer.decode([new Int32Array(3)]),
        () => tokenizer.decode([new Int32Array(tokenizer.tokens).fill(-1)]),
        () => generator.sample([10]),
      ])
        try { await wrong(); } catch (error) { console.log(error.name, error.message); }`,
    );
    const lines = (await node('wrong.mjs')).stdout.trim().split('\n');
    expect(lines[0]).toMatch(/^ConfigError image 0 is 16 × 32; this tokenizer takes 32 × 32/);
    expect(lines[1]).toMatch(
      /^ConfigError codes of image 0: 3 of them; an image has 21 codes from 0 to \d+$/,
    );
    expect(lines[2]).toMatch(/^ConfigError codes of image 0: -1 is among them/);
    expect(lines[3]).toMatch(/^ConfigError there is no class 10; classes are 0 to 9$/);
  });

  it('has types', async () => {
    const [example] = await documented();
    await writeFile(at('project/example.mts'), example);
    await writeFile(
      at('project/wrong.mts'),
      `import { openTokenizer } from 'alitok';\n(await openTokenizer(1)).encode('x');`,
    );
    const options = ['--noEmit', '--skipLibCheck', '--strict', '--module', 'nodenext', '--target', 'es2022'];
    const compile = () =>
      node(join(repository('node_modules/typescript/bin/tsc')), ...options, 'example.mts', 'wrong.mts');
    const { stdout } = await compile().catch((error) => error);
    const errors = String(stdout)
      .split('\n')
      .filter((line) => /error TS/.test(line));
    expect(errors).not.toEqual([]);
    for (const error of errors) expect(error).toMatch(/^wrong\.mts\(2,/);
  });

  it('has an API reference that builds without warnings', async () => {
    const typedoc = repository('node_modules/typedoc/bin/typedoc');
    // Type errors are found by `npm run typecheck`.
    await run(process.execPath, [typedoc, '--emit', 'none', '--skipErrorChecking'], { cwd: repository('.') });
  });

  it('has the command', async () => {
    const { stdout } = await node('node_modules/alitok/bin/alitok.js', 'inspect', 'alitok_b.bin');
    expect(stdout).toMatch(/^kind +generator$/m);
  });

  it('recognizes published weights without its config files', async () => {
    const package_ = 'node_modules/alitok';
    const inspected = async () => {
      const both = [at('project/alitok_b.bin'), fixture('goldens/tokenizer_stage2.pth')];
      const said = both.map((file) => node(`${package_}/bin/alitok.js`, 'inspect', file));
      return (await Promise.all(said)).map(({ stdout }) => stdout);
    };
    const before = await inspected();
    for (const name of ['alitok_b', 'alitok_l', 'alitok_xl', 'tokenizer'])
      await writeFile(at('project', package_, `configs/${name}.yaml`), 'generator: { width: 64 }\n');
    expect(await inspected()).toEqual(before);
  });
});
