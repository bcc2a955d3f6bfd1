import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import sharp from 'sharp';
import { beforeAll, describe, expect, it } from 'vitest';
import { openNpz } from '../../src/formats/npz.js';
import { drawPictures } from '../../src/quickstart/pictures.js';
import { alitok, start, succeed, TINY, temporaryFolder } from './alitok.js';

const at = await temporaryFolder();
const [train, tokenizer, tokens, generator] = [
  at('train'),
  at('tokenizer'),
  at('tokens.safetensors'),
  at('generator'),
];

async function lines(path: string): Promise<Record<string, number>[]> {
  return (await readFile(path, 'utf8'))
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
}

const model = (run: string, step = 6) =>
  readFile(at(run, 'checkpoints', `step-${String(step).padStart(7, '0')}`, 'model.safetensors'));

const trainTokenizer = (run: string, ...more: string[]) =>
  ['train-tokenizer', '-c', TINY, '-d', train, '--validation', train, '-r', at(run), ...more] as const;

beforeAll(async () => {
  await drawPictures({ folder: at(), size: 16, perClass: 3, seed: 1, split: 'train' });
  await succeed(...trainTokenizer('tokenizer'));
  await succeed('tokenize', '-c', TINY, '--tokenizer', tokenizer, '-d', train, '-o', tokens);
  await succeed('train-ar', '-c', TINY, '--tokens', tokens, '--tokenizer', tokenizer, '-r', generator);
});

describe('the pipeline', () => {
  it('writes complete run folders', async () => {
    for (const run of ['tokenizer/stage1', 'tokenizer/stage2', 'generator']) {
      const always = [
        'checkpoints',
        'config.yaml',
        'images',
        'log.jsonl',
        'metrics.jsonl',
        'run.json',
        'tensorboard',
      ];
      expect((await readdir(at(run))).sort()).toEqual(
        (run === 'generator' ? always : [...always, 'code-counts.jsonl']).sort(),
      );
      expect(await readdir(at(run, 'checkpoints'))).toEqual(['step-0000004', 'step-0000006']);
      const steps = (await lines(at(run, 'metrics.jsonl'))).filter((row) => 'loss' in row);
      expect(steps.map((row) => row.step)).toEqual([2, 4, 6]);
      for (const row of steps) expect(row.loss).toBeGreaterThan(0);
      const [picture] = await readdir(at(run, 'images'));
      expect((await sharp(at(run, 'images', picture)).metadata()).width).toBeGreaterThan(64);
    }
    const { starts, seed } = JSON.parse(await readFile(at('generator', 'run.json'), 'utf8'));
    expect(seed).toBe(0);
    expect(starts).toHaveLength(1);
    expect(starts[0].command).toMatch(/^alitok --engine wasm train-ar -c /);
  });

  it('warns of classes without images, and refuses images of unknown classes', async () => {
    const dryRun = (run: string, ...more: string[]) =>
      alitok('train-ar', '-c', TINY, '--tokens', tokens, '-r', at(run), '--dry-run', ...more);
    const right = await dryRun('no');
    expect(right.stderr).not.toMatch(/generator\.classes/);
    const more = await dryRun('no', 'generator.classes=20');
    expect(more.code).toBe(0);
    expect(more.stderr).toMatch(
      /generator\.classes is 20, but .* has 12 classes: .* set generator\.classes=12/,
    );
    const fewer = await dryRun('no', 'generator.classes=10');
    expect(fewer.code).toBe(2);
    expect(fewer.stderr).toMatch(/generator\.classes is 10, .*; set generator\.classes=12/);
  });

  it('samples the requested classes, with the same images for the same seed', async () => {
    const sample = (out: string, ...more: string[]) =>
      succeed('sample', '-g', generator, '--tokenizer', tokenizer, '-o', at(out), ...more);
    await sample('by-name', '--classes', 'red-cross,blue-circle', '--per-class', '2');
    await sample('by-index', '--classes', '9,0', '--per-class', '2', '--batch-size', '3');
    await sample('other', '--classes', '9,0', '--per-class', '2', '--seed', '5');
    const names = (await readdir(at('by-name', 'images'))).sort();
    expect(names).toEqual([
      '000000-red-cross.png',
      '000001-blue-circle.png',
      '000002-red-cross.png',
      '000003-blue-circle.png',
    ]);
    const pixels = async (run: string) => {
      const npz = await openNpz(at(run, 'samples.npz'));
      const { shape, data } = await npz.read('arr_0');
      npz.close();
      return { shape, data };
    };
    const first = await pixels('by-name');
    expect(first.shape).toEqual([4, 16, 16, 3]);
    expect(await pixels('by-index')).toEqual(first);
    expect((await pixels('other')).data).not.toEqual(first.data);
    const png = await sharp(at('by-name', 'images', names[3]))
      .raw()
      .toBuffer();
    expect([...png]).toEqual([...(first.data as Uint8Array).subarray(3 * 768)]);
    expect((await sharp(at('by-name', 'grid.png')).metadata()).format).toBe('png');
  });

  it('samples classes in turn, so that every split of an evaluation has all of them', async () => {
    const sampled = async (out: string, ...more: string[]) => {
      await succeed('sample', '-g', generator, '--tokenizer', tokenizer, '-o', at(out), ...more);
      return (await readdir(at(out, 'images'))).sort().map((name) => name.slice(7, -'.png'.length));
    };
    const names = (await readdir(train)).sort();
    expect(await sampled('turns', '--count', '30')).toEqual([...names, ...names, ...names.slice(0, 6)]);
    expect(await sampled('turns', '--per-class', '2')).toEqual([...names, ...names]); // nothing from before is left
  });

  it('reconstructs, evaluates, draws curves and inspects', async () => {
    await succeed('reconstruct', '--tokenizer', tokenizer, '-d', train, '-o', at('pairs'), '-n', '4');
    expect(existsSync(at('pairs', 'pairs.png'))).toBe(true);
    await succeed('train-features', '-c', TINY, '-d', train, '-r', at('features'));
    const json = at('reconstruction.json');
    const { stdout } = await succeed(
      ...['eval', 'reconstruction', '--tokenizer', tokenizer, '-d', train],
      ...['--features', at('features'), '-o', json],
    );
    const result = JSON.parse(await readFile(json, 'utf8'));
    expect(result.images).toBe(36);
    expect(stdout).toContain(result.psnr.toFixed(4));
    for (const name of ['psnr', 'ssim', 'codebook_usage', 'codebook_entropy', 'rfid'])
      expect(result[name]).toEqual(expect.any(Number));
    const generation = await succeed(
      ...['eval', 'generation', '--samples', train, '--size', '16', '--reference', train],
      ...['--features', at('features')],
    );
    const metric = (name: string) => Number(new RegExp(`^${name} +(\\S+)`, 'm').exec(generation.stdout)?.[1]);
    expect(Math.abs(metric('fid'))).toBeLessThan(1e-3); // a set against itself
    expect([metric('precision'), metric('recall')]).toEqual([1, 1]);
    await succeed('curves', at('tokenizer', 'stage1'), generator, '-o', at('curves.png'));
    expect((await sharp(at('curves.png')).metadata()).format).toBe('png');
    for (const path of [tokenizer, tokens, generator, TINY])
      expect((await succeed('inspect', path)).stdout).toMatch(/\d/);
  });

  it('computes a reference, and evaluates a generator directly from its run', async () => {
    const features = ['--features', at('features')];
    const reference = at('reference.npz');
    const stats = ['stats', '-d', train, '--size', '16', ...features, '--keep', '12', '-o', reference];
    expect((await succeed(...stats)).stdout).toMatch(/^images +36$/m);
    const npz = await openNpz(reference);
    expect(npz.names).toEqual(['mu', 'sigma', 'mu_s', 'sigma_s', 'arr_0']);
    expect((await npz.header('sigma')).dtype).toBe('f8');
    expect((await npz.header('arr_0')).shape).toEqual([12, 16, 16, 3]);
    npz.close();

    const evaluate = (...more: string[]) => ['eval', 'generation', ...features, '--reference', ...more];
    const json = at('generation.json');
    const run = ['-g', generator, '--tokenizer', tokenizer, '--samples', at('sampled'), '--count', '24'];
    await succeed(...evaluate(reference, ...run, '-o', json));
    const result = JSON.parse(await readFile(json, 'utf8'));
    expect(result).toMatchObject({ samples: 24, references: 12, image_size: 16, inception_split: 5000 });
    expect(result.reference_statistics).toBe('stored in the reference');
    expect(result.sampling.settings).toHaveProperty('guidance_scale');
    for (const sum of [result.features_sha256, result.reference_sha256, result.sampling.generator_sha256])
      expect(sum).toMatch(/^[0-9a-f]{64}$/);
    expect(result.engine.name).toBe('wasm');

    // The images exist already, and the file alone gives the same numbers.
    const again = await succeed(...evaluate(reference, ...run));
    expect(again.stderr).toMatch(
      /keeping the images in .*: samples\.json says that they were made with the same options/,
    );
    const alone = await succeed(...evaluate(reference, '--samples', at('sampled', 'samples.npz')));
    expect(alone.stdout).toBe(again.stdout);
    const metric = (name: string) => Number(new RegExp(`^${name} +(\\S+)`, 'm').exec(alone.stdout)?.[1]);
    expect(metric('fid')).toBeCloseTo(result.fid, 3);

    const half = await alitok(...evaluate(reference, '--samples', at('sampled'), '-g', generator));
    expect([half.code, half.stderr]).toEqual([
      2,
      expect.stringMatching(/--generator and --tokenizer belong together/),
    ]);
  });

  it('a stopped run saves, and after resuming ends like an uninterrupted one', async () => {
    const many = 'tokenizer_training.stage1.phases=[{steps: 400, lr: 1.0e-3, w_lpips: 0, w_perc: 0}]';
    const options = ['--stage', '1', 'logging.checkpoint_every=400', 'logging.images_every=400', many];
    await succeed(...trainTokenizer('whole', ...options));
    const { child, outcome } = start(...trainTokenizer('stopped', ...options));
    const began = Date.now();
    while (!existsSync(at('stopped', 'stage1', 'metrics.jsonl'))) {
      if (Date.now() - began > 30_000) throw new Error('the run does not begin');
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    child.kill('SIGINT');
    const { code, stderr } = await outcome;
    expect(code).toBe(130);
    expect(stderr).toMatch(/stopped at step \d+, which is saved in .*; resume it with --resume/);
    const [saved] = await readdir(at('stopped', 'stage1', 'checkpoints'));
    expect(Number(saved.slice(5))).toBeLessThan(400);
    await succeed(...trainTokenizer('stopped', ...options, '--resume'));
    expect((await model('stopped/stage1', 400)).equals(await model('whole/stage1', 400))).toBe(true);
    const again = await succeed(...trainTokenizer('stopped', ...options, '--resume'));
    expect(again.stderr).toContain('already finished, at step 400');
  });

  it('refuses files that do not belong together', async () => {
    const refused = async (code: number, message: RegExp, ...args: string[]) => {
      const outcome = await alitok(...args);
      expect(outcome.stderr.trim().split('\n').at(-1)).toMatch(message);
      expect(outcome.code).toBe(code);
    };
    await refused(
      6,
      /tokenizer.stage1 already contains a run; continue it with --resume/,
      ...trainTokenizer('tokenizer'),
    );
    await refused(4, /contains no run to resume/, ...trainTokenizer('nowhere', '--resume'));
    expect(existsSync(at('nowhere'))).toBe(false);
    await refused(
      2,
      /12.*0.*11|classes.*12/,
      ...['sample', '-g', generator, '--tokenizer', tokenizer, '--classes', '12', '-o', at('no')],
    );
    await refused(
      2,
      /purple-circle/,
      ...['sample', '-g', generator, '--tokenizer', tokenizer, '--classes', 'purple-circle', '-o', at('no')],
    );
    await refused(4, /tokenizer/, ...['sample', '-g', generator, '--tokenizer', generator, '-o', at('no')]);
    await refused(
      4,
      /not-a-model|no such|does not exist/i,
      'reconstruct',
      '--tokenizer',
      at('not-a-model'),
      '-d',
      train,
      '-o',
      at('no'),
    );
    expect(existsSync(at('no'))).toBe(false);
    // Another tokenizer than the one that made the tokens.
    await succeed(...trainTokenizer('other', 'seed=1'));
    await refused(
      3,
      /tokens\.safetensors.*another tokenizer|tokenizer.*tokens\.safetensors/,
      ...['train-ar', '-c', TINY, '--tokens', tokens, '--tokenizer', at('other'), '-r', at('refused')],
    );
    expect(existsSync(at('refused'))).toBe(false);
    await refused(
      4,
      /was trained|tokenizer/,
      ...['sample', '-g', generator, '--tokenizer', at('other'), '-o', at('no')],
    );
  });
});
