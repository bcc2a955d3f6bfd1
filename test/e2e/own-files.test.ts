import { existsSync, readFileSync } from 'node:fs';
import { cp, lstat, mkdir, readdir, rename, symlink, writeFile } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { alitok, succeed, TINY, temporaryFolder, tinyRun, useOneThread } from './alitok.js';

// The program never replaces or removes a file that it did not write.

const at = await temporaryFolder();
useOneThread();
const [train, tokenizer, tokens, generator] = [
  at('train'),
  at('tokenizer'),
  at('tokens.safetensors'),
  at('generator'),
];
const models = ['-g', generator, '--tokenizer', tokenizer];
const features = ['--features', at('features')];
const images = ['-c', TINY, '-d', train];

beforeAll(async () => {
  await tinyRun(at());
  await succeed('train-ar', '-c', TINY, '--tokens', tokens, '--tokenizer', tokenizer, '-r', generator);
  await succeed('train-features', ...images, '-r', at('features'));
});

/** All files below a folder, with their contents. */
async function contents(folder: string): Promise<Record<string, string>> {
  const names = (await readdir(folder, { recursive: true })).map(String).sort();
  const files = names.filter((name) => !existsSync(`${folder}/${name}/.`));
  return Object.fromEntries(files.map((name) => [name, readFileSync(`${folder}/${name}`, 'latin1')]));
}

async function put(path: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, 'precious\n');
}

/** Runs a command whose output path is a file of the user; it must refuse, name the file, and change nothing. */
async function expectRefused(folder: string, mine: string[], named: RegExp, args: string[]): Promise<void> {
  for (const name of mine) await put(at(folder, name));
  const before = await contents(at(folder));
  const { code, stderr } = await alitok(...args);
  const errors = stderr.split('\n').filter((line) => line.startsWith('error: '));
  expect(errors.join('\n')).toMatch(named);
  expect([errors.length, code]).toEqual([1, 6]);
  expect(await contents(at(folder))).toEqual(before);
}

describe("a user's file with the name of a result", () => {
  const written = (name: string) => new RegExp(`${name} already exists and was not written by alitok`);
  const reconstruction = ['eval', 'reconstruction', '--tokenizer', tokenizer, '-d', train];
  const generation = [
    'eval',
    'generation',
    '--samples',
    train,
    '--size',
    '16',
    '--reference',
    train,
    ...features,
  ];
  it.each<[string, string, string[]]>([
    ['tokenize', 'a.safetensors', ['tokenize', ...images, '--tokenizer', tokenizer, '-o', '@']],
    ['stats', 'a.npz', ['stats', '-d', train, '--size', '16', ...features, '-o', '@']],
    ['eval reconstruction', 'a.json', [...reconstruction, '-o', '@']],
    ['eval generation', 'b.json', [...generation, '-o', '@']],
    ['convert to safetensors', 'b.safetensors', ['convert', tokenizer, '@']],
    ['convert to PyTorch', 'b.pth', ['convert', tokenizer, '@']],
    ['curves', 'a.png', ['curves', tokenizer, '-o', '@']],
    ['report', 'a.html', ['report', tokenizer, '-o', '@']],
  ])('%s refuses it, and replaces its own', async (command, name, args) => {
    const folder = `result-${command.replaceAll(' ', '-')}`;
    const path = at(folder, name);
    const words = args.map((word) => (word === '@' ? path : word));
    await expectRefused(folder, [name], written(name), words);
    await rename(path, at(folder, 'moved'));
    await succeed(...words);
    await succeed(...words);
    expect((await readdir(at(folder))).sort()).toEqual([name, 'moved'].sort());
  });

  it.each(['samples.npz', 'samples.json', 'grid.png', 'images/000003-cat.png'])(
    'sample refuses %s, replaces its own, and leaves other files alone',
    async (name) => {
      const folder = `samples-${name.replace('/', '-')}`;
      const sample = ['sample', ...models, '--per-class', '1', '-o', at(folder)];
      await expectRefused(folder, [name], written(name), sample);
      await rename(at(folder, name), at(folder, 'moved'));
      const mine = ['images/holiday.png', 'images/.notes.12.3.tmp', '.lock-notes.json', 'thesis.txt'];
      for (const one of mine) await put(at(folder, one));
      await succeed(...sample);
      await succeed(...sample);
      const after = await contents(at(folder));
      for (const one of [...mine, 'moved']) expect(after[one], one).toBe('precious\n');
      expect(Object.keys(after)).toHaveLength(mine.length + 1 + 12 + 3);
    },
  );

  it("sample keeps the user's links to its own files, and writes to their targets", async () => {
    const sample = ['sample', ...models, '--per-class', '1', '-o', at('linked')];
    await succeed(...sample);
    const linked = ['samples.npz', 'samples.json', 'grid.png', 'images/000000-blue-circle.png'];
    await mkdir(at('elsewhere'));
    for (const name of linked) {
      await rename(at('linked', name), at('elsewhere', basename(name)));
      await symlink(at('elsewhere', basename(name)), at('linked', name));
    }
    await succeed(...sample, '--seed', '5');
    for (const name of linked) expect((await lstat(at('linked', name))).isSymbolicLink(), name).toBe(true);
    expect(readFileSync(at('elsewhere/samples.json'), 'utf8')).toContain('"seed": 5');
  });

  it('reconstruct refuses it, and replaces its own', async () => {
    const reconstruct = ['reconstruct', '--tokenizer', tokenizer, '-d', train, '-n', '2', '-o', at('pairs')];
    await expectRefused('pairs', ['pairs.png'], written('pairs.png'), reconstruct);
    await rename(at('pairs/pairs.png'), at('pairs/moved'));
    for (let i = 0; i < 2; i++) await succeed(...reconstruct);
    expect((await readdir(at('pairs'))).sort()).toEqual(['moved', 'pairs.png']);
  });
});

describe("a user's folder with the name of unfinished output", () => {
  it('tokenize refuses OUT.partial with anything else in it', async () => {
    const tokenize = ['tokenize', ...images, '--tokenizer', tokenizer, '-o', at('work', 'out.safetensors')];
    for (const name of ['thesis.txt', 'codes'])
      await expectRefused(
        'work',
        [`out.safetensors.partial/${name}`],
        /out\.safetensors\.partial contains \w+(\.txt)?, which does not belong to an interrupted run/,
        tokenize,
      );
  });

  it('sample refuses OUT/partial with anything else in it', async () => {
    const sample = ['sample', ...models, '--per-class', '1', '-o', at('under-way')];
    await expectRefused('under-way', ['partial/thesis.txt'], /partial contains thesis\.txt, which/, sample);
  });
});

describe('training', () => {
  it.each(['config.yaml', 'checkpoints/step-0000002/thesis.txt', 'images/holiday.png'])(
    "refuses a folder with the user's %s",
    async (name) => {
      const folder = `run-${name.replaceAll('/', '-')}`;
      await expectRefused(folder, [name], new RegExp(`contains ${name.split('/')[0]} but no run\\.json`), [
        'train-features',
        ...images,
        '-r',
        at(folder),
      ]);
    },
  );

  it("leaves the user's files in a run, in its checkpoints too", async () => {
    const longer = 'features.steps=8';
    await cp(at('features'), at('noted'), { recursive: true });
    const [first] = await readdir(at('noted/checkpoints'));
    const mine = [
      'notes.txt',
      '.notes.12.3.tmp',
      'images/.holiday.png.1.2.tmp',
      `checkpoints/${first}/notes.txt`,
      'checkpoints/mine.partial/thesis.txt',
      'checkpoints/step-0000006.damaged/thesis.txt',
    ];
    for (const name of mine) await put(at('noted', name));
    const resume = ['train-features', ...images, '-r', at('noted'), '--resume', '--allow-changes', longer];
    await succeed(...resume, 'logging.keep_checkpoints=1');
    const after = await contents(at('noted'));
    for (const name of mine) expect(after[name], name).toBe('precious\n');
    expect(existsSync(at('noted/checkpoints', first, 'model.safetensors'))).toBe(false);
  });
});

it('quickstart refuses a folder that it did not make', async () => {
  await expectRefused(
    'mine',
    ['thesis.txt', 'pictures/holiday.txt'],
    /mine holds pictures\/holiday\.txt and 1 more file, which no earlier quickstart wrote/,
    ['quickstart', '-o', at('mine')],
  );
});
