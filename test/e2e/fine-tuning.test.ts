import { cp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { beforeAll, describe, expect, it } from 'vitest';
import { openTensorFile } from '../../src/checkpoint/open.js';
import { openEngine, openGenerator, openTokenizer } from '../../src/index.js';
import { alitok, succeed, TINY, temporaryFolder, tinyRun, useOneThread } from './alitok.js';

useOneThread();
const at = await temporaryFolder();
const [tokens, tokenizer, base] = [at('tokens.safetensors'), at('tokenizer'), at('base')];
/** What a config of fine-tuning sets: the training, and no sizes. */
const SHORT = [
  'generator_training.steps=4',
  'generator_training.batch_size=4',
  'generator_training.warmup_steps=1',
  'logging.checkpoint_every=2',
];
const APART = [...SHORT, 'generator_training.lora.rank=2', 'generator_training.lora.merge=false'];
const trainAr = (run: string, ...more: string[]) => ['train-ar', '--tokens', tokens, '-r', at(run), ...more];
const recordOf = async (run: string) => JSON.parse(await readFile(at(run, 'run.json'), 'utf8'));

beforeAll(async () => {
  await tinyRun(at());
  await succeed(...trainAr('base', '-c', TINY));
  await succeed(...trainAr('other', '-c', TINY, 'seed=1'));
});

describe('train-ar --init', () => {
  it('takes sizes and weights, and records what it took', async () => {
    const { stderr } = await succeed(...trainAr('full', '--init', base, ...SHORT));
    expect(stderr).toMatch(/initial weights \S*base \(SHA-256 [0-9a-f]{16}…\): \d+ parameters taken/);
    const { initial, inputs } = await recordOf('full');
    expect(initial).toMatchObject({ path: base, redrawn: [], changed: {} });
    expect(inputs['the initial weights']).toBe(`SHA-256 ${initial.sha256}`);
    const config = await readFile(at('full', 'config.yaml'), 'utf8');
    expect(config).toMatch(/generator:\n {2}width: 16\n {2}layers: 1\n {2}heads: 2\n {2}classes: 12\n/);
    expect(config).toMatch(/image_size: 16\n {2}patch_size: 8\n/);
  });

  it('says with --dry-run what it would take, and writes nothing', async () => {
    const { stdout } = await succeed(...trainAr('dry', '--init', base, ...APART, '--dry-run'));
    expect(stdout).toMatch(/memory/);
    await expect(stat(at('dry'))).rejects.toThrow();
  });

  it('maps classes by their names', async () => {
    await writeFile(at('map.txt'), 'red-circle = blue-square\n');
    const more = ['--init', base, '--init-classes', at('map.txt'), ...SHORT];
    await succeed(...trainAr('mapped', ...more));
    expect((await recordOf('mapped')).initial.changed).toEqual({
      'embeddings.weight': 'codes and "no class" taken, 1 class mapped, 11 classes drawn anew',
    });
  });

  it('refuses other sizes, a map alone and adapters of nothing', async () => {
    const failing = async (...more: string[]) => {
      const { code, stderr } = await alitok(...trainAr('failing', ...more));
      expect(stderr.trim().split('\n').at(-1)).toMatch(/^\S/);
      return `${code} ${stderr}`;
    };
    expect(await failing('--init', base, 'generator.width=32')).toMatch(
      /^4 .*has generator\.width 16, but the config sets 32; leave generator\.width out/s,
    );
    expect(await failing('--init-classes', at('map.txt'))).toMatch(/^2 .*give --init too/s);
    expect(await failing('-c', TINY, ...APART)).toMatch(
      /^2 .*generator_training\.lora adapts trained weights; name them with --init/s,
    );
    expect(await failing('--init', tokenizer)).toMatch(/^4 .*holds a tokenizer; a generator is needed/s);
    expect(await failing('--init', base, 'generator_training.freeze=["block"]')).toMatch(
      /^2 .*no parameter matches block; did you mean blocks/s,
    );
  });
});

describe('adapters saved apart', () => {
  beforeAll(async () => {
    await succeed(...trainAr('lora', '--init', base, ...APART));
  });

  it('are small, described by inspect, and sampled with the generator that they adapt', async () => {
    const file = await openTensorFile(at('lora/checkpoints/step-0000004/model.safetensors'));
    const names = [...file.tensors.keys()];
    await file.close();
    expect(names).toHaveLength(2 * 5 + 1);
    expect(names).toContain('blocks.0.attn.qkv.lora_A.weight');
    expect((await succeed('inspect', at('lora'))).stdout).toMatch(/adapters of a generator .*all names and/s);
    const images = ['-t', tokenizer, '--per-class', '1', '--npz-only'];
    await succeed('sample', '-g', base, '--lora', at('lora'), ...images, '-o', at('samples'));
    const { lora } = JSON.parse(await readFile(at('samples/samples.json'), 'utf8'));
    expect(lora).toMatch(/model\.safetensors/);
  });

  it('are the same model as merged ones', async () => {
    const merged = APART.map((one) => one.replace('merge=false', 'merge=true'));
    await succeed(...trainAr('merged', '--init', base, ...merged));
    const images = ['-t', tokenizer, '--per-class', '1', '--npz-only'];
    await succeed('sample', '-g', at('merged'), ...images, '-o', at('from-merged'));
    const pictures = await Promise.all(
      ['samples', 'from-merged'].map((folder) => readFile(at(folder, 'samples.npz'))),
    );
    expect(pictures[0].equals(pictures[1])).toBe(true);
  });

  it('are merged by the library, too', async () => {
    await openEngine('wasm', { threads: 1 });
    const codec = await openTokenizer(tokenizer);
    const settings = { temperature: 0 };
    const codes = [];
    for (const open of [
      () => openGenerator(base, codec, { lora: at('lora') }),
      () => openGenerator(at('merged'), codec),
    ]) {
      const generator = await open();
      codes.push(await generator.sampleCodes([0, 3], settings));
      generator.dispose();
    }
    expect(codes[1]).toEqual(codes[0]);
    codec.dispose();
  });

  it('are refused with another generator, or without one', async () => {
    const sample = async (...generator: string[]) => {
      const { code, stderr } = await alitok('sample', ...generator, '-t', tokenizer, '-o', at('no'));
      return `${code} ${stderr}`;
    };
    expect(await sample('-g', at('other'), '--lora', at('lora'))).toMatch(
      /^4 .*adapts generator [0-9a-f]{16}, but \S*other is [0-9a-f]{16}; name the one that it was trained on/s,
    );
    expect(await sample('-g', at('lora'))).toMatch(
      /^4 .*holds adapters; a generator is needed here: sample with --lora, beside .*lora\.merge=true saves whole/s,
    );
    expect(await sample('-g', base, '--lora', at('other'))).toMatch(/^4 .*holds a generator; adapters are/s);
  });

  it('resume from their checkpoints and the initial weights', async () => {
    await cp(at('lora'), at('stopped'), { recursive: true });
    const last = 'checkpoints/step-0000004';
    await rm(at('stopped', last), { recursive: true });
    await succeed(...trainAr('stopped', '--resume', '--init', base, ...APART));
    for (const name of ['model.safetensors', 'adapters.safetensors', 'optimizer.safetensors']) {
      const [whole, resumed] = await Promise.all(
        ['lora', 'stopped'].map((run) => readFile(at(run, last, name))),
      );
      expect(resumed.equals(whole), name).toBe(true);
    }
    expect((await recordOf('stopped')).initial.path).toBe(base);
    await succeed(...trainAr('configured', '-c', TINY, ...SHORT, '--init', base));
    const { code, stderr } = await alitok(...trainAr('configured', '--resume', '-c', TINY, ...SHORT));
    expect(code).toBe(3);
    expect(stderr).toMatch(/the initial weights: "SHA-256 [0-9a-f]+" → none/);
  });
});

describe('train-tokenizer --init', () => {
  const PHASES = [1, 2].map((stage) => `tokenizer_training.stage${stage}.phases=[{steps: 2, lr: 0.001}]`);
  const train = (run: string, ...more: string[]) => [
    ...['train-tokenizer', '-d', at('train'), '-r', at(run), 'tokenizer_training.batch_size=2'],
    ...['tokenizer_training.warmup_steps=1', ...PHASES, ...more],
  ];

  it('fine-tunes the decoder of a PyTorch file, on the same codes', async () => {
    await succeed('convert', tokenizer, at('tokenizer.pth'));
    await succeed(...train('decoder', '--stage', '2', '--init', tokenizer));
    const { initial } = await recordOf('decoder/stage2');
    expect(initial).toMatchObject({ changed: {}, redrawn: [] });
    // The codes are still those of the token cache.
    await succeed('train-ar', '-c', TINY, '--tokens', tokens, '-t', at('decoder'), '-r', at('with-decoder'));
  });

  it('trains both stages at another image size', async () => {
    const { stderr } = await succeed(...train('larger', '--init', tokenizer, 'tokenizer.image_size=32'));
    expect(stderr).toMatch(/latent_tokens: interpolated from 2 × 2 \+ 3 to 4 × 4 \+ 5/);
    for (const stage of ['stage1', 'stage2'])
      expect((await recordOf(`larger/${stage}`)).initial.path).toBe(tokenizer);
    expect((await succeed('inspect', at('larger'))).stdout).toMatch(/32 × 32 px/);
  });

  it('keeps a prefix without the extra token at another image size', async () => {
    await succeed(...train('iclr', '-c', TINY, 'tokenizer.prefix_tokens=2'));
    const larger = ['--init', at('iclr'), '--stage', '2', 'tokenizer.image_size=32'];
    const { stderr } = await succeed(...train('iclr-larger', ...larger));
    expect(stderr).toMatch(/latent_tokens: interpolated from 2 × 2 \+ 2 to 4 × 4 \+ 4;/);
    await succeed(...train('iclr-other', ...larger, 'tokenizer.prefix_tokens=null'));
    const { stdout } = await succeed('inspect', at('iclr-other'));
    expect(stdout).toMatch(/5 prefix \+ 4²/);
  });

  it('refuses what does not fit stage 2 before stage 1 is trained', async () => {
    const freezing = async (pattern: string) => {
      const freeze = `tokenizer_training.freeze=["${pattern}"]`;
      const { code, stderr } = await alitok(...train('frozen', '--init', tokenizer, freeze));
      await expect(stat(at('frozen'))).rejects.toThrow();
      return `${code} ${stderr}`;
    };
    expect(await freezing('decoder')).toMatch(
      /^2 .*tokenizer_training\.freeze matches all parameters that stage 2 trains; leave some out/s,
    );
    expect(await freezing('decoder.ffn_aux')).toMatch(
      /^2 .*freeze: no parameter of stage 2 matches decoder/s,
    );
    const one = ['--stage', '1', '--init', tokenizer, 'tokenizer_training.freeze=["decoder.ffn_aux"]'];
    await succeed(...train('frozen', ...one));
  });

  it('refuses a tokenizer of stage 1 for stage 2', async () => {
    const init = ['--stage', '2', '--init', `${tokenizer}/stage1`];
    const { code, stderr } = await alitok(...train('refused', ...init));
    expect(code).toBe(4);
    expect(stderr).toMatch(/is a tokenizer of stage 1, .* name it with --from instead of --init/);
  });
});
