import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import sharp from 'sharp';
import { beforeAll, describe, expect, it } from 'vitest';
import { drawPictures } from '../../src/quickstart/pictures.js';
import { alitok, type Outcome, succeed, TINY, temporaryFolder, useOneThread } from './alitok.js';

const at = await temporaryFolder();
useOneThread();
const train = at('train');
const root = process.getuid?.() === 0;

beforeAll(async () => {
  await drawPictures({ folder: at(), size: 16, perClass: 3, seed: 1, split: 'train' });
});

const trainTokenizer = (run: string, data = train, ...more: string[]) =>
  alitok('train-tokenizer', '-c', TINY, '-d', data, '-r', at(run), '--stage', '1', ...more);

/** Expects one line besides progress and warnings, without a stack trace, and the exit code. */
function expectRefusal({ code, stderr }: Outcome, expected: number, message: RegExp) {
  const lines = stderr
    .split('\n')
    .filter((line) => line !== '' && !/ (INFO|WARN): |\d (steps|images) \|/.test(line));
  expect(lines).toHaveLength(1);
  expect(lines[0]).toMatch(/^error: /);
  expect(lines[0]).toMatch(message);
  expect(code).toBe(expected);
}

describe('configs and options', () => {
  it.each([
    ['tokenizer.image_sise=16', /image_sise.*image_size/],
    ['tokenizer.image_size=big', /tokenizer\.image_size/],
    ['tokenizer.patch_size=7', /tokenizer\.image_size.*patch_size: 16 is not one of 7/],
    ['generator.heads=3', /generator\.width.*generator\.heads/],
    ['tokenizer_training.stage1.phases=[{steps: 9, lr: 1.0e-3, w_lpips: 1}]', /w_lpips.*without/],
    ['generator', /generator/],
  ])('%s is refused', async (override, message) => {
    expectRefusal(await trainTokenizer('refused', train, override), 2, message);
    expect(existsSync(at('refused'))).toBe(false);
  });

  it('a config that is missing or not YAML is named', async () => {
    const missing = at('missing.yaml');
    expectRefusal(await alitok('inspect', missing), 2, /missing\.yaml/);
    await writeFile(at('broken.yaml'), 'tokenizer: {image_size: [1\n');
    expectRefusal(await alitok('inspect', at('broken.yaml')), 2, /broken\.yaml/);
  });

  it('an unknown command or option is named', async () => {
    const command = await alitok('trane-ar');
    expect(command.code).toBe(2);
    expect(command.stderr).toMatch(/unknown command 'trane-ar'[\s\S]*train-ar/);
    const option = await alitok('inspect', '--sed', TINY);
    expect(option.code).toBe(2);
    expect(option.stderr).toContain("unknown option '--sed'");
  });

  it('the message says what to do about an engine that is not built', async () => {
    const outcome = await alitok(
      'train-tokenizer',
      '--engine',
      'tensorflow',
      '-c',
      TINY,
      '-d',
      train,
      '-r',
      at('tf'),
    );
    if (outcome.code === 0) return; // the engine is available here
    expectRefusal(outcome, 5, /--engine tensorflow is not built/);
    expect(outcome.stderr).toMatch(/pip install tensorflow.*npm run build:tensorflow/);
    expect(existsSync(at('tf'))).toBe(false);
  });

  it('--verbose shows where an error came from', async () => {
    const { stderr } = await alitok('-v', 'inspect', at('missing.yaml'));
    expect(stderr).toMatch(/\n {4}at /);
  });
});

describe('data', () => {
  it('a missing or empty folder is named', async () => {
    expectRefusal(await trainTokenizer('refused', at('none')), 3, /image folder .*none: no such folder/);
    await mkdir(at('empty'), { recursive: true });
    expectRefusal(await trainTokenizer('refused', at('empty')), 3, /empty/);
    expect(existsSync(at('refused'))).toBe(false);
  });

  it('a truncated tar file is named; a complete one gives the same as its folder', async () => {
    execFileSync('tar', ['-C', train, '-cf', at('train.tar'), '.']);
    const whole = await readFile(at('train.tar'));
    await writeFile(at('cut.tar'), whole.subarray(0, whole.length / 2));
    expectRefusal(
      await trainTokenizer('refused', at('cut.tar')),
      3,
      /cut\.tar is not a valid tar file: .* cut off/,
    );
    expect(existsSync(at('refused'))).toBe(false);

    expect((await trainTokenizer('from-tar', at('train.tar'))).code).toBe(0);
    const file = (run: string, name: string) => readFile(at(run, 'stage1', name));
    const model = 'checkpoints/step-0000006/model.safetensors';
    expect((await file('from-tar', model)).equals(await file('tokenizer', model))).toBe(true);
    const rows = String(await file('from-tar', 'metrics.jsonl'))
      .trim()
      .split('\n');
    for (const { data_wait } of rows.map((row) => JSON.parse(row)).filter(({ loss }) => loss !== undefined)) {
      expect(data_wait).toBeGreaterThanOrEqual(0);
      expect(data_wait).toBeLessThanOrEqual(1);
    }
  });

  it('a few unreadable files are skipped and named, more than 1 % end the run', async () => {
    const folder = at('mixed');
    await mkdir(folder);
    const good = await sharp({ create: { width: 20, height: 18, channels: 3, background: 'red' } })
      .jpeg()
      .toBuffer();
    for (let i = 0; i < 199; i++) await writeFile(`${folder}/${i}.jpg`, good);
    await writeFile(`${folder}/text.jpg`, 'this is no picture');
    const { stderr } = await succeed(
      ...['reconstruct', '--tokenizer', at('tokenizer'), '-d', folder, '-o', at('mixed-pairs'), '-n', '200'],
    );
    expect(stderr).toMatch(/text\.jpg/);
    await writeFile(`${folder}/cut.jpg`, good.subarray(0, good.length / 2));
    await writeFile(`${folder}/none.png`, '');
    expectRefusal(
      await alitok('reconstruct', '--tokenizer', at('tokenizer'), '-d', folder, '-o', at('no'), '-n', '300'),
      3,
      /3 of 202 images in .*mixed cannot be read, more than 1 %/,
    );
    expect(existsSync(at('no'))).toBe(false);
  });

  it('reads every image format', async () => {
    const folder = at('kinds');
    await mkdir(folder);
    const make = (background: string, width = 24) =>
      sharp({ create: { width, height: 20, channels: 3, background } });
    await make('gray').greyscale().png().toFile(`${folder}/grey.png`);
    await make('teal').toColourspace('cmyk').jpeg().toFile(`${folder}/cmyk.jpg`);
    await make('teal').toColourspace('rgb16').png().toFile(`${folder}/16-bit.png`);
    await make('teal').png({ palette: true }).toFile(`${folder}/palette.png`);
    await make('teal').ensureAlpha(0.5).webp().toFile(`${folder}/alpha.webp`);
    await make('teal')
      .withExif({ IFD0: { Orientation: '6' } })
      .jpeg()
      .toFile(`${folder}/turned.jpeg`);
    const { stderr } = await succeed(
      ...['eval', 'reconstruction', '--tokenizer', at('tokenizer'), '-d', folder, '-o', at('kinds.json')],
    );
    expect(stderr).not.toMatch(/skipped/);
    expect(JSON.parse(await readFile(at('kinds.json'), 'utf8')).images).toBe(6);
  });

  beforeAll(async () => {
    const { code, stderr } = await trainTokenizer('tokenizer');
    if (code !== 0) throw new Error(stderr);
  });
});

describe('checkpoints and outputs', () => {
  it('a file that is not a model, or has another shape, is named', async () => {
    await writeFile(at('text.safetensors'), 'hello, this is no safetensors file at all');
    const reconstruct = (tokenizer: string) =>
      alitok('reconstruct', '--tokenizer', tokenizer, '-d', train, '-o', at('no'));
    expectRefusal(await reconstruct(at('text.safetensors')), 4, /text\.safetensors/);
    const model = at('tokenizer', 'stage1', 'checkpoints', 'step-0000006', 'model.safetensors');
    const whole = await readFile(model);
    await writeFile(at('cut.safetensors'), whole.subarray(0, whole.length - 100));
    expectRefusal(await reconstruct(at('cut.safetensors')), 4, /cut\.safetensors/);
    // Resuming with other sizes than at the start of the run.
    expectRefusal(
      await trainTokenizer('tokenizer', train, '--resume', 'tokenizer.encoder.width=32'),
      2,
      /stage1 was started with other values, tokenizer\.encoder\.width: 16 → 32; use the old ones, or .*--allow-changes/,
    );
    expectRefusal(
      await trainTokenizer('tokenizer', train, '--resume', '--allow-changes', 'tokenizer.encoder.width=32'),
      4,
      /does not fit this model; misshapen: .*encoder.*; use the config it was trained with/,
    );
    expect(existsSync(at('no'))).toBe(false);
  });

  it('stage 2 without stage 1 leaves no run behind', async () => {
    const stage2 = ['train-tokenizer', '-c', TINY, '-d', train, '-r', at('stage2'), '--stage', '2'];
    expectRefusal(
      await alitok(...stage2),
      4,
      /stage1 holds no checkpoint for stage 2 to start from; .*--from/,
    );
    expect(existsSync(at('stage2'))).toBe(false);
    const other = [...stage2, '--from', at('tokenizer', 'stage1'), 'tokenizer.encoder.width=32'];
    expectRefusal(await alitok(...other), 4, /was trained with another tokenizer\.encoder; /);
    expect(existsSync(at('stage2'))).toBe(false);
  });

  it('a generator resumes only with the codes it was started with', async () => {
    expect((await trainTokenizer('other', train, 'seed=7')).code).toBe(0);
    const trainAr = (tokens: string, ...more: string[]) =>
      alitok('train-ar', '-c', TINY, '--tokens', at(tokens), '-r', at('generator'), ...more);
    for (const name of ['tokenizer', 'other'])
      await succeed('tokenize', '--tokenizer', at(name), '-d', train, '-o', at(`${name}.tokens`));
    expect((await trainAr('tokenizer.tokens')).code).toBe(0);
    expectRefusal(
      await trainAr('other.tokens', '--resume'),
      3,
      /generator was started on other data, the tokenizer of the codes: "\w+" → "\w+"; use the old data, or/,
    );
  });

  it.skipIf(root)('a folder that is not writable is named', async () => {
    await mkdir(at('locked'));
    await chmod(at('locked'), 0o500);
    expectRefusal(await trainTokenizer('locked/run'), 6, /locked/);
  });

  it('a path that cannot be a folder is named', async () => {
    await writeFile(at('file'), '');
    expectRefusal(await trainTokenizer('file/run'), 6, /file/);
  });
});
