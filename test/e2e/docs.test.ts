import { existsSync } from 'node:fs';
import { cp, mkdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { drawPictures, PICTURE_CLASSES } from '../../src/quickstart/pictures.js';
import {
  writeConvNeXt,
  writeInceptionGraph,
  writeInceptionPytorch,
  writeLPIPS,
  writeVGG16,
} from '../golden/network-files.js';
import { blocksOf, commandLines, PAGES, readPage, repository, wordsOf } from '../support/documented.js';
import { canRun } from '../support/engines.js';
import { writeTrainingFile } from '../support/training-file.js';
import { runIn, succeed, TINY_VALUES, temporaryFolder, tinyRun, useOneThread } from './alitok.js';

/** Prefixes of lines in the pages that are not run here, and why. */
const NOT_RUN: Record<string, string> = {
  'npm test': 'this is it',
  'npx vitest': 'runs tests like these',
  'npm link': 'changes the machine; package.test.ts installs the package and runs it',
  'npm run build:': 'compiles for minutes; `npm run setup` does it where there is the library',
  'npm explore': 'needs an installed package; `npm run setup` does the same',
  'apt-get install': 'changes the machine',
  'pip install': 'changes the machine',
  'node test/bench/': 'measures for minutes',
  'python3 test/bench/peer.py': 'needs PyTorch, and measures for minutes',
  torchrun: "needs PyTorch and two machines; processes.test.ts starts ranks by torchrun's variables",
  'alitok doctor --device cuda': 'needs a GPU; test/doctor/doctor.test.ts runs it on a pretended one',
  srun: 'needs a cluster; processes.test.ts starts ranks by variables',
  'export MASTER_ADDR=$(scontrol': 'needs a cluster',
  tmux: 'shows a terminal; test/cli/progress.test.ts reads the same lines off a screen of its own',
  'tensorboard --logdir': "needs Python's TensorBoard; test/run/events.test.ts reads the files",
};

/** Values of options that would take long, and the small ones that replace them. */
const SMALL: Record<string, string> = {
  '--count': '4',
  '--per-class': '1',
  '-n': '1',
  '--processes': '2',
  '--repeats': '1',
  '--size': '32',
};

/** Engines that not every machine has. */
const OPTIONAL = ['libtorch', 'tensorflow'] as const;
/** Commands that the other engines cannot run. */
const LIBTORCH_ALONE = ['launch', '--precision'];
/** Networks of published size: the fastest available engine runs them, and other tests run them on wasm. */
const LARGE = /^networks\.|inception|classify_image/;
/** Commands that read nothing from a page's folder and write nothing for later commands. */
const ALONE = ['quickstart', 'bench', 'doctor'];

/** A step with the loss networks that a command names, at published size, so the batch is one image. */
function perceptualValues(words: readonly string[]): string[] {
  const w_lpips = words.some((word) => word.startsWith('networks.lpips')) ? 1 : 0;
  return [
    ...['stage1', 'stage2'].map(
      (stage) =>
        `tokenizer_training.${stage}.phases=[{steps: 1, lr: 1.0e-3, w_lpips: ${w_lpips}, w_perc: 0.1}]`,
    ),
    ...['tokenizer_training.batch_size=1', 'tokenizer_training.warmup_steps=1'],
  ];
}

const { scripts } = JSON.parse(await readFile(repository('package.json'), 'utf8'));

/** A documented command line as it is run: the same command and files, at a size that takes seconds. */
function made(line: string): string[] {
  const script = /^npm run (\w+)$/.exec(line)?.[1];
  const [first, ...words] = wordsOf(
    script ? scripts[script].replace(/^.*node bin\/alitok\.js/, 'alitok') : line,
  );
  expect(first).toBe('alitok');
  const small = words.map(
    (word, i) =>
      SMALL[words[i - 1]] ??
      word.replace(/^(sample:\d+):\d+$/, '$1:2').replace(/^(tokenizer\.image_size)=512$/, '$1=64'),
  );
  if (words.includes('generation') && words.includes('-g') && !words.includes('--count'))
    small.push('--count', SMALL['--count']);
  const sizes = /^(tokenizer|generator)\./; // with finetune.yaml, those of the weights
  const values = words.includes('configs/finetune.yaml')
    ? TINY_VALUES.filter((value) => !sizes.test(value))
    : TINY_VALUES;
  if (words.includes('-c') || words[0] === 'quickstart') small.push(...values);
  if (words.some((word) => word.startsWith('networks.'))) small.push(...perceptualValues(words));
  const libtorch =
    words.some((word) => LIBTORCH_ALONE.includes(word)) ||
    (canRun('libtorch') && words.some((word) => LARGE.test(word)));
  return libtorch ? ['--engine', 'libtorch', ...small] : small;
}

const golden = (name: string) => repository(`test/fixtures/goldens/${name}`);
const at = await temporaryFolder();
useOneThread();
const material = (name: string) => at('materials', name);

/** Draws images into folders of these classes. */
async function pictures(folder: string, perClass: number, classes: readonly string[]): Promise<void> {
  await drawPictures({ folder: at('drawn'), size: 32, perClass, seed: 1, split: 'all' });
  await mkdir(folder);
  for (const [i, name] of classes.entries())
    await rename(at('drawn/all', PICTURE_CLASSES[i]), `${folder}/${name}`);
  await rm(at('drawn'), { recursive: true });
}

/**
 * Files that the pages assume, by their names there, and how they are made. A page's folder has those that it names.
 * Files of trained networks are replaced by small ones of the same kinds, in their published formats.
 */
const MATERIALS: Record<string, (path: string) => Promise<unknown>> = {
  'photos/train': (path) => pictures(path, 4, ['cat', 'dog']),
  'photos/test': (path) => pictures(path, 2, ['cat', 'dog']),
  landscapes: async (path) => {
    await mkdir(path);
    await pictures(at('classes'), 4, ['one']);
    await cp(at('classes/one'), path, { recursive: true });
  },
  'cifar10/train': (path) => pictures(path, 1, PICTURE_CLASSES.slice(0, 10)),
  'cifar10/test': (path) => pictures(path, 1, PICTURE_CLASSES.slice(0, 10)),
  'eight/train': (path) => pictures(path, 1, PICTURE_CLASSES.slice(0, 8)),
  'eight/test': (path) => pictures(path, 1, PICTURE_CLASSES.slice(0, 8)),
  'two/train': (path) => pictures(path, 2, ['horse', 'truck']),
  'two.txt': (path) => writeFile(path, 'horse = 4\ntruck = 1\n'),
  'imagenet/train': (path) => pictures(path, 1, PICTURE_CLASSES.slice(0, 4)),
  'imagenet/val': (path) => pictures(path, 1, PICTURE_CLASSES.slice(0, 4)),
  'folder/of/pngs': (path) => pictures(path, 1, PICTURE_CLASSES.slice(0, 4)),
  'photos.yaml': async (path) => writeFile(path, blocksOf('docs/your-images.md', 'yaml')[0]),
  'classes.txt': (path) => writeFile(path, 'cat = 1\ndog = 0\n'),
  'tokenizer.pth': (path) => cp(golden('tokenizer_stage2.pth'), path),
  'AliTok.pth': (path) =>
    succeed(
      'convert',
      golden('tokenizer_stage2.pth'),
      path,
      'tokenizer.encoder.heads=3',
      'tokenizer.decoder.heads=4',
    ),
  'training.pth': async (path) => {
    const weights = { 'embeddings.weight': { shape: [2, 2], data: new Float32Array(4) } };
    await writeTrainingFile(path, { model: weights, ema: weights });
  },
  'alitok_b.bin': (path) => cp(golden('generator.bin'), path),
  'vgg16-397923af.pth': writeVGG16,
  'vgg.pth': writeLPIPS,
  'convnext_small-0c510722.pth': writeConvNeXt,
  'classify_image_graph_def.pb': writeInceptionGraph,
  'pt_inception-2015-12-05-6726825d.pth': writeInceptionPytorch,
  'VIRTUAL_imagenet256_labeled.npz': (path) => {
    const images = ['-d', material('imagenet/train'), '--size', '32', '--keep', '12'];
    const features = ['--features', material('classify_image_graph_def.pb')];
    const engine = canRun('libtorch') ? ['--engine', 'libtorch'] : [];
    return succeed(...engine, 'stats', ...images, ...features, '-o', path);
  },
  'imagenet.safetensors': async (path) => {
    await tinyRun(at('tiny'));
    await cp(at('tiny/tokens.safetensors'), path);
  },
};

/** Pages that use the runs of another page. */
const AFTER: Record<string, string> = { 'docs/debugging.md': 'README.md', 'docs/watching.md': 'README.md' };

const commands = PAGES.map((page): [string, string[]] => [page, commandLines(page)]);
const isRun = (line: string) => !Object.keys(NOT_RUN).some((start) => line.startsWith(start));
const once = new Set<string>();
/** The lines that are run, page by page; of independent commands, equivalent ones are run once. */
const RUN = commands
  .map(([page, lines]): [string, string[]] => [
    page,
    lines.filter((line) => {
      if (!isRun(line)) return false;
      const words = made(line).join(' ').replace(' --engine wasm', ''); // the default in these tests
      if (once.has(words)) return false;
      if (made(line).some((word) => ALONE.includes(word))) once.add(words);
      return true;
    }),
  ])
  .filter(([, lines]) => lines.length > 0);
const named = Object.keys(MATERIALS).filter((name) =>
  commands.some(([, lines]) => lines.join('\n').includes(name)),
);

beforeAll(async () => {
  for (const name of named) {
    await mkdir(dirname(material(name)), { recursive: true });
    await MATERIALS[name](material(name));
  }
}, 120_000);

describe.each(RUN)('%s', (page, lines) => {
  const folder = at(page.replaceAll('/', '-'));
  let broken = false;

  beforeAll(async () => {
    await mkdir(folder);
    await symlink(repository('configs'), `${folder}/configs`);
    for (const name of named.filter((one) => readPage(page).includes(one))) {
      await mkdir(dirname(`${folder}/${name}`), { recursive: true });
      await symlink(material(name), `${folder}/${name}`);
    }
    if (AFTER[page])
      await cp(at(AFTER[page].replaceAll('/', '-'), 'runs'), `${folder}/runs`, { recursive: true });
  });

  afterEach(({ task }) => {
    broken ||= task.result?.state === 'fail';
  });

  it.for(lines)('%s', async (line, { skip }) => {
    expect(broken, 'an earlier command of the page failed').toBe(false);
    const words = made(line);
    const engine = words[words.indexOf('--engine') + 1];
    skip(
      OPTIONAL.some((name) => name === engine && !canRun(name)),
      `there is no ${engine}`,
    );
    const { code, stderr } = await runIn(folder, ...words);
    expect(code, stderr).toBe(0);
    const results = words.flatMap((word, i) =>
      ['-o', '--out', '-r', '--run'].includes(words[i - 1]) ? [word] : [],
    );
    if (!words.includes('--dry-run'))
      expect(
        results.filter((name) => !existsSync(`${folder}/${name}`)),
        'not made',
      ).toEqual([]);
  });
});

it('runs every command that is not skipped, and skips only existing commands', () => {
  const all = commands.flatMap(([, lines]) => lines);
  const used = Object.keys(NOT_RUN).filter((start) => all.some((line) => line.startsWith(start)));
  expect(used).toEqual(Object.keys(NOT_RUN));
  expect(all.filter((line) => isRun(line) && !/^(alitok|npm run quickstart)( |$)/.test(line))).toEqual([]);
});
