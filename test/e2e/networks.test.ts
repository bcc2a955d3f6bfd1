import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { beforeAll, describe, expect, it } from 'vitest';
import { drawPictures } from '../../src/quickstart/pictures.js';
import {
  writeConvNeXt,
  writeInceptionGraph,
  writeInceptionPytorch,
  writeLPIPS,
  writeVGG16,
} from '../golden/network-files.js';
import { alitok, succeed, TINY, temporaryFolder, useOneThread } from './alitok.js';

const at = await temporaryFolder();
useOneThread();
const [train, vgg16, lpips, convnext] = [at('train'), at('vgg16.pth'), at('vgg.pth'), at('convnext.pth')];

beforeAll(async () => {
  await drawPictures({ folder: at(), size: 16, perClass: 1, seed: 1, split: 'train' });
  await writeVGG16(vgg16);
  await writeLPIPS(lpips);
  await writeConvNeXt(convnext);
});

/** The phases of the recipe: both terms, then only the classifier's, then the adversary in alternating steps. */
const PHASES = JSON.stringify([
  { steps: 1, lr: 1e-3, w_lpips: 1, w_perc: 0.1 },
  { steps: 1, lr: 1e-3, w_perc: 1 },
  { steps: 2, lr: 1e-3, w_perc: 1, adversarial: true },
]);

const trainTokenizer = (run: string, stage: string, ...more: string[]) => [
  ...['train-tokenizer', '-c', TINY, '-d', train, '-r', at(run), '--stage', stage],
  ...[
    'tokenizer_training.batch_size=1',
    'tokenizer_training.warmup_steps=1',
    'logging.metrics_every=1',
    'logging.validation_images=1',
    ...more,
  ],
];

describe('the perceptual recipe', () => {
  it('trains a stage through its phases with the networks, and records their checksums', async () => {
    const files = [`networks.vgg16=${vgg16}`, `networks.lpips=${lpips}`, `networks.convnext=${convnext}`];
    await succeed(...trainTokenizer('run', '1', ...files, `tokenizer_training.stage1.phases=${PHASES}`));
    const rows = (await readFile(at('run/stage1/metrics.jsonl'), 'utf8'))
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    const steps = rows.filter((row) => row.loss !== undefined);
    expect(steps.map(({ phase }) => phase)).toEqual([1, 2, 3]);
    expect(steps.map((row) => row.lpips > 0)).toEqual([true, false, false]);
    expect(steps.every((row) => row.perceptual > 0)).toBe(true);
    expect(steps[2].adversarial).toBeTypeOf('number');
    expect(rows.at(-1).discriminator ?? rows.at(-2).discriminator).toBeGreaterThan(0);
    // The factor 10 · 17/256 is for the published grid; here k/g² = 3/4.
    const [{ loss, mse, aux_mse, quantizer, lpips: distance, perceptual }] = steps;
    expect(loss).toBeCloseTo(mse + 10 * (3 / 4) * aux_mse + quantizer + distance + 0.1 * perceptual, 4);
    const { inputs } = JSON.parse(await readFile(at('run/stage1/run.json'), 'utf8'));
    const sha256 = createHash('sha256')
      .update(await readFile(lpips))
      .digest('hex');
    expect(inputs['networks.lpips']).toBe(`SHA-256 ${sha256}`);
    expect(Object.keys(inputs)).toEqual(expect.arrayContaining(['networks.convnext', 'networks.vgg16']));
  }, 300_000);

  it('is refused before any stage starts if a file is missing or wrong', async () => {
    const phases = 'tokenizer_training.stage2.phases=[{steps: 1, lr: 1.0e-3, w_perc: 1}]';
    const absent = await alitok(...trainTokenizer('refused', 'all', phases));
    expect(absent.code).toBe(2);
    expect(absent.stderr).toMatch(
      /stage2\.phases\.0\.w_perc is 1, which needs networks\.convnext \(torchvision's /,
    );
    const swapped = await alitok(...trainTokenizer('refused', 'all', phases, `networks.convnext=${lpips}`));
    expect(swapped.code).toBe(4);
    expect(swapped.stderr).toMatch(/vgg\.pth holds LPIPS weights; a ConvNeXt-S is needed here/);
    expect(existsSync(at('refused'))).toBe(false);
  });
});

describe('the networks files', () => {
  it('inspect shows their type, and that they are valid', async () => {
    const [pth, pb] = [at('inception.pth'), at('inception.pb')];
    await writeInceptionPytorch(pth);
    await writeInceptionGraph(pb);
    for (const [path, kind, parameters] of [
      [vgg16, /^kind +VGG-16, as torchvision's vgg16-397923af\.pth$/m, '14,714,688'],
      [lpips, /^kind +LPIPS weights/m, '1,472'],
      [convnext, /^kind +ConvNeXt-S/m, '50,223,688'],
      [pth, /^kind +Inception, as pytorch-fid's/m, '23,885,392'],
      [pb, /^kind +Inception graph, as the ADM evaluator's/m, '23,885,392'],
    ] as const) {
      const { stdout } = await succeed('inspect', path);
      expect(stdout).toMatch(kind);
      expect(stdout).toContain(parameters);
      expect(stdout).toMatch(/^tensor names +all names and shapes match$/m);
    }
  });

  it('LPIPS is among the reconstruction metrics', async () => {
    const run = ['eval', 'reconstruction', '--tokenizer', at('run'), '-d', train, '-o', at('result.json')];
    const half = await alitok(...run, '--vgg16', vgg16);
    expect(half.code).toBe(2);
    expect(half.stderr).toMatch(/--vgg16 .* and --lpips .*; give both, or neither/);
    await succeed(...run, '--vgg16', vgg16, '--lpips', lpips);
    const result = JSON.parse(await readFile(at('result.json'), 'utf8'));
    expect(result.lpips).toBeGreaterThan(0);
    expect(Object.keys(result.lpips_sha256)).toEqual(['vgg16', 'lpips']);
  });

  it('LPIPS of images too small to be halved four times is refused, in training and in evaluation', async () => {
    const small = ['tokenizer.image_size=8', 'tokenizer.patch_size=4'];
    const files = [`networks.vgg16=${vgg16}`, `networks.lpips=${lpips}`];
    const phases = (weight: number) =>
      `tokenizer_training.stage1.phases=[{steps: 1, lr: 1.0e-3, w_lpips: ${weight}}]`;
    const refused = await alitok(...trainTokenizer('small', '1', ...small, ...files, phases(1)));
    expect(refused.code).toBe(2);
    expect(refused.stderr).toMatch(/image_size is 8, but .*\.w_lpips is 1 and LPIPS needs images of 16 px/);
    expect(existsSync(at('small'))).toBe(false);
    await succeed(...trainTokenizer('small', '1', ...small, phases(0)));
    const evaluation = ['eval', 'reconstruction', '--tokenizer', at('small'), '-d', train];
    const measured = await alitok(...evaluation, '--vgg16', vgg16, '--lpips', lpips);
    expect(measured.code).toBe(3);
    expect(measured.stderr).toMatch(/LPIPS needs images of 16 px at least, but those of .*small are 8 px/);
  });
});
