import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';

let project: string;

/** A project with a single package, whose build fails while the file `src/broken` exists. */
beforeAll(() => {
  project = mkdtempSync(join(tmpdir(), 'alitok-setup-'));
  const natives = ['libtorch', 'tensorflow'].map((name) => `src/engine/${name}/native`);
  for (const folder of ['bin', 'src/deep', 'src/engine/native', 'part', ...natives])
    mkdirSync(join(project, folder), { recursive: true });
  for (const name of ['bin/setup.js', 'bin/engines.js', 'src/engine/native/npm.js'])
    copyFileSync(name, join(project, name));
  const build = `
    const fs = require('node:fs');
    fs.mkdirSync('dist', { recursive: true });
    if (fs.existsSync('src/broken')) throw new Error('type error');
  `;
  writeFileSync(join(project, 'build.cjs'), build);
  const description = { name: 'project', version: '1.0.0', dependencies: { part: 'file:part' } };
  const scripts = { build: 'node build.cjs' };
  writeFileSync(join(project, 'package.json'), JSON.stringify({ ...description, scripts, type: 'module' }));
  const part = { name: 'part', version: '1.0.0' };
  writeFileSync(join(project, 'part/package.json'), JSON.stringify(part));
  const packages = { '': description, 'node_modules/part': { resolved: 'part', link: true }, part };
  const lock = { ...description, lockfileVersion: 3, requires: true, packages };
  writeFileSync(join(project, 'package-lock.json'), JSON.stringify(lock));
  writeFileSync(join(project, 'src/deep/a.ts'), '');
  const native =
    "console.log('native', process.argv[1].split('/').at(-3), process.argv[2], 'in', process.cwd());";
  for (const folder of natives) {
    writeFileSync(join(project, folder, 'package.json'), '{}'); // CommonJS
    writeFileSync(join(project, folder, 'build.js'), native);
  }
});
afterAll(() => rmSync(project, { recursive: true }));

function setup(env: NodeJS.ProcessEnv = {}) {
  const script = join(project, 'bin/setup.js');
  const { stdout, stderr, status } = spawnSync(process.execPath, [script], {
    cwd: tmpdir(),
    encoding: 'utf8',
    env: { ...process.env, ...env },
  });
  return { lines: stdout.split('\n').filter(Boolean), stderr, status };
}

const INSTALL = expect.stringMatching(/^setup: installing packages/);
const BUILD = expect.stringMatching(/^setup: building \(npm run build\)/);
/** The scripts themselves decide whether there is anything to build, since that depends on which libraries are found. */
const NATIVE = ['libtorch', 'tensorflow'].map((name) =>
  expect.stringMatching(new RegExp(`^native ${name} --if-found in .*alitok-setup-`)),
);

it('installs and builds a fresh clone once, then only what has changed', () => {
  expect(setup()).toEqual({ lines: [INSTALL, BUILD, ...NATIVE], stderr: '', status: 0 });
  expect(existsSync(join(project, 'node_modules/part/package.json'))).toBe(true);
  expect(setup()).toEqual({ lines: NATIVE, stderr: '', status: 0 });

  // A clock that runs ahead must not cause repeated installs or builds.
  const ahead = (minutes: number) => new Date(Date.now() + 60_000 * minutes);
  utimesSync(join(project, 'src/deep/a.ts'), ahead(1), ahead(1));
  expect(setup().lines).toEqual([BUILD, ...NATIVE]);
  expect(setup().lines).toEqual(NATIVE);

  utimesSync(join(project, 'package-lock.json'), ahead(2), ahead(2));
  expect(setup().lines).toEqual([INSTALL, BUILD, ...NATIVE]);
  expect(setup().lines).toEqual(NATIVE);
});

it('shows why a build failed, and builds again next time', () => {
  writeFileSync(join(project, 'src/broken'), '');
  rmSync(join(project, 'dist'), { recursive: true });
  for (const _ of [1, 2]) {
    const { lines, stderr, status } = setup();
    expect(lines).toEqual([BUILD]);
    expect(stderr).toContain('type error');
    expect(stderr).toContain('setup: npm run build failed');
    expect(status).toBe(1);
  }
  rmSync(join(project, 'src/broken'));
  expect(setup()).toMatchObject({ lines: [BUILD, ...NATIVE], status: 0 });
});

it('runs no installation scripts of packages', () => {
  const script = join(project, 'npm-cli.js');
  const later = new Date(Date.now() + 600_000);
  utimesSync(join(project, 'package-lock.json'), later, later);
  writeFileSync(
    script,
    `import { writeFileSync } from 'node:fs';
    if (process.argv[2] === 'ci') writeFileSync('arguments', process.argv.slice(2).join(' '));`,
  );
  expect(setup({ npm_execpath: script }).lines).toContainEqual(INSTALL);
  expect(readFileSync(join(project, 'arguments'), 'utf8')).toMatch(/^ci .*--ignore-scripts/);
});

it('is done by the commands themselves, which pass their arguments on', async () => {
  const { scripts } = JSON.parse(readFileSync('package.json', 'utf8'));
  expect(Object.keys(scripts).filter((name) => /^(pre|post)(?!install$)/.test(name))).toEqual([]);
  for (const name of ['test', 'quickstart']) expect(scripts[name]).toMatch(/^node bin\/setup\.js && /);
  const file = join(project, 'package.json');
  const description = JSON.parse(readFileSync(file, 'utf8'));
  Object.assign(description.scripts, { quickstart: scripts.quickstart });
  writeFileSync(file, JSON.stringify(description));
  writeFileSync(join(project, 'bin/alitok.js'), 'console.log(JSON.stringify(process.argv.slice(2)));');
  const { stdout } = spawnSync('npm', ['run', 'quickstart', '--ignore-scripts', '--', '--seed', '7'], {
    cwd: project,
    encoding: 'utf8',
  });
  expect(stdout).toContain('native libtorch --if-found');
  expect(stdout).toContain('["quickstart","--seed","7"]');
});
