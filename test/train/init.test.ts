import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as tf from '@tensorflow/tfjs';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { saveGenerator } from '../../src/checkpoint/generator.js';
import { resamplePositions } from '../../src/checkpoint/positions.js';
import { saveTokenizer } from '../../src/checkpoint/tokenizer.js';
import { parseConfig } from '../../src/config/schema.js';
import { forCommandLine } from '../../src/errors.js';
import { Generator } from '../../src/models/generator/generator.js';
import type { GeneratorConfig, Stage, TokenizerConfig } from '../../src/models/geometry.js';
import { Tokenizer } from '../../src/models/tokenizer/tokenizer.js';
import { Random } from '../../src/random.js';
import { TokenCacheWriter } from '../../src/tokens/cache.js';
import { checkInit, defaultsFrom, initGenerator } from '../../src/train/generator/init.js';
import { initialInput } from '../../src/train/initial-weights.js';
import * as tokenizerInit from '../../src/train/tokenizer/init.js';
import { openGenerator } from '../golden/generator.js';
import { openTokenizer } from '../golden/tokenizer.js';
import { describeEngines } from '../support/engines.js';

const folder = await mkdtemp(join(tmpdir(), 'init-'));
const at = (name: string) => join(folder, name);
afterAll(() => rm(folder, { recursive: true }));
const GENERATOR = fileURLToPath(new URL('../fixtures/goldens/generator.bin', import.meta.url));
const FRESH = Random.of(5, 'fresh');

const said: string[] = [];
const reporter = {
  info: (message: string) => void said.push(message),
  warn: (message: string) => void said.push(message),
  progress: () => ({ update() {}, stop() {} }),
};
const messageOf = (run: Promise<unknown>) =>
  run.then(
    () => 'no error',
    (error) => forCommandLine(error.text),
  );
const valuesOf = (parameters: Iterable<{ name: string; value: tf.Tensor }>) =>
  Object.fromEntries(Array.from(parameters, (p) => [p.name, [...p.value.dataSync()]]));

describeEngines('starting a generator from trained weights', () => {
  /** The golden generator's sizes with others, started from its file. */
  async function start(
    change: Partial<GeneratorConfig>,
    init: { classes?: string } = {},
    names: string[] = [],
  ) {
    const { generator: golden } = await openGenerator();
    const generator = new Generator({ ...golden.geometry, ...change });
    const target = { generator, classNames: names };
    said.length = 0;
    const initial = await initGenerator({ path: GENERATOR, ...init }, target, FRESH, reporter);
    return { golden, generator, initial };
  }

  it('takes all of it for the same classes', async () => {
    const { golden, generator, initial } = await start({});
    expect(valuesOf(generator.parameters)).toEqual(valuesOf(golden.parameters));
    expect(initial).toMatchObject({ path: GENERATOR, changed: {}, redrawn: [] });
    expect(initial.taken).toBe([...golden.parameters].length);
    expect(initial.sha256).toMatch(/^[0-9a-f]{64}$/);
    expect(said.join()).toMatch(
      /^initial weights .*generator\.bin \(SHA-256 [0-9a-f]{16}…\): \d+ parameters taken$/,
    );
    for (const one of [golden, generator]) one.dispose();
  });

  it('draws the rows of other classes anew, or maps them', async () => {
    await writeFile(at('map.txt'), '\ufeff# own = theirs\r\n\n  # indented\nb = 2\r\n#2 = none\n');
    const { golden, generator, initial } = await start({ classes: 3 }, { classes: at('map.txt') }, [
      'a',
      'b',
      'c',
    ]);
    const fresh = new Generator(generator.geometry);
    fresh.parameters.initialize(FRESH);
    const { width, codebook_size: n } = golden.geometry;
    const rows = (one: Generator) => {
      const values = one.parameters.get('embeddings.weight')!.value.dataSync();
      return (first: number, count = 1) => [...values.slice(first * width, (first + count) * width)];
    };
    const [own, theirs, drawn] = [generator, golden, fresh].map(rows);
    expect(own(0, n + 1)).toEqual(theirs(0, n + 1));
    expect(own(n + 1)).toEqual(drawn(n + 1));
    expect(own(n + 2)).toEqual(theirs(n + 1 + 2));
    const noClass = theirs(golden.conditionOf(golden.noClass));
    expect([own(n + 3), own(n + 4)]).toEqual([noClass, noClass]);
    expect(initial.changed).toEqual({
      'embeddings.weight': 'codes and "no class" taken, 2 classes mapped, 1 class drawn anew',
    });
    for (const one of [golden, generator, fresh]) one.dispose();
  });

  it('trains and samples with another grid and prefix', async () => {
    const { golden, generator } = await start({ grid: 3, prefix_tokens: 3, classes: 1 });
    const codes = tf.tensor2d([Array.from({ length: 12 }, (_, i) => i)], [1, 12], 'int32');
    const condition = tf.tensor1d([generator.conditionOf(0)], 'int32');
    const loss = generator.loss(generator.forward(condition, codes), codes).dataSync()[0];
    expect(loss).toBeGreaterThan(0);
    expect(loss).toBeLessThan(20);
    for (const one of [golden, generator]) one.dispose();
  });

  it('refuses other sizes and wrong maps in one line', async () => {
    const { generator: golden } = await openGenerator();
    const { width } = golden.geometry;
    const attempt = (change: object, classes?: string) => {
      const generator = new Generator({ ...golden.geometry, ...change });
      return messageOf(
        checkInit({ path: GENERATOR, classes }, { generator, classNames: ['a', 'b'] }, reporter),
      );
    };
    expect(await attempt({ width: 2 * width })).toMatch(
      `has generator.width ${width}, but the config sets ${2 * width}; leave generator.width out`,
    );
    expect(await attempt({ codebook_size: 3 })).toMatch(
      /has tokenizer\.codebook_size \d+, but the config sets 3/,
    );
    const map = async (text: string) => {
      await writeFile(at('wrong.txt'), text);
      return attempt({ classes: 2 }, at('wrong.txt'));
    };
    expect(await map('# nothing\n')).toMatch(/wrong\.txt maps no class; add lines/);
    expect(await map('a\n')).toMatch(/wrong\.txt, line 1: must have the form/);
    expect(await map('a=b = 1')).toMatch(/line 1: must have the form .* write a name with = as its index/);
    expect(await map('\nz = 1')).toMatch(/^--init-classes .*wrong\.txt, line 2: there is no class z/);
    expect(await map('a = 99999')).toMatch(/line 1: there is no class 99999/);
    expect(await map('a = 1\na = 2')).toMatch(/line 2: a is mapped twice/);
    expect(await map('none = 1')).toMatch(/line 1: "no class" is always taken/);
    expect(await attempt({ classes: 2 }, at('missing.txt'))).toMatch(/missing\.txt: ENOENT/);
    golden.dispose();
  });

  it('warns of codes of another tokenizer, and where classes of the same number have other names', async () => {
    const { generator: golden } = await openGenerator();
    const { classes } = golden.geometry;
    const names = Array.from({ length: classes }, (_, c) => `theirs ${c}`);
    const info = {
      generator: golden.geometry,
      classNames: names,
      tokenizer: 'aaaa',
      sample: parseConfig({}, 'test').sample,
    };
    await saveGenerator(at('named.safetensors'), golden.parameters, info);
    const start = async (classNames: string[], tokenizer?: string) => {
      said.length = 0;
      const generator = new Generator(golden.geometry);
      const target = { generator, classNames, tokenizer };
      await checkInit({ path: at('named.safetensors') }, target, reporter);
      generator.dispose();
      return forCommandLine(said.join('\n'));
    };
    for (const tokenizer of [undefined, 'aaaa'])
      expect(await start(names, tokenizer)).not.toMatch(/other names|other codes/);
    expect(await start(names, 'bbbb')).toMatch(
      /named\.safetensors models the codes of tokenizer aaaa, but the tokens are those of bbbb: .* other codes/,
    );
    expect(await start(['mine', ...names.slice(1)])).toMatch(/of which 1 have other names; .* map them with/);
    golden.dispose();
  });
});

it('initial weights are identified by their file, the key in it and the map of classes', async () => {
  const inputs = await Promise.all(
    [GENERATOR, `${GENERATOR}#model`, `${GENERATOR}#ema`].map((path) => initialInput(path)),
  );
  expect(new Set(inputs.map((one) => one['the initial weights'])).size).toBe(3);
  await writeFile(at('map.txt'), 'a = 1');
  const mapped = await initialInput(GENERATOR, at('map.txt'));
  expect(mapped).toMatchObject(inputs[0]);
  expect(mapped['the map of classes']).toMatch(/^SHA-256 [0-9a-f]{64}$/);
});

it('the config of a fine-tuning takes what it leaves from the file and the token cache', async () => {
  const writer = await TokenCacheWriter.create(at('tokens.safetensors'), {
    ...{ images: 1, crops: 1, tokens: 20, codebookSize: 32, classNames: ['a', 'b'] },
    ...{ fingerprint: '', preprocessing: 'flip', imageSize: 32, source: '' },
  });
  await writer.append(new Array(20).fill(0), 0);
  await writer.finish();
  const { generator: golden } = await openGenerator();
  const { width, layers, heads, codebook_size } = golden.geometry;
  expect(await defaultsFrom(GENERATOR, at('tokens.safetensors'))).toMatchObject({
    generator: { width, layers, heads, classes: 2 },
    tokenizer: { codebook_size, image_size: 32, patch_size: 8, prefix_tokens: 4 },
    sample: { guidance_scale: 16 },
  });
  golden.dispose();
});

describeEngines('starting a tokenizer from trained weights', () => {
  const files: Record<Stage, string> = { 1: at('stage1.safetensors'), 2: at('stage2.safetensors') };
  let goldens: Record<Stage, Tokenizer>;
  beforeAll(async () => {
    goldens = { 1: (await openTokenizer(1)).tokenizer, 2: (await openTokenizer(2)).tokenizer };
    for (const stage of [1, 2] as const) await saveTokenizer(files[stage], goldens[stage]);
  });

  async function start(from: Stage, to: Stage, change: Partial<TokenizerConfig> = {}) {
    said.length = 0;
    const tokenizer = new Tokenizer({ ...goldens[from].config, ...change }, to);
    const initial = await tokenizerInit.initTokenizer(files[from], tokenizer, FRESH, reporter);
    return { tokenizer, initial, values: valuesOf(tokenizer.parameters) };
  }

  it.each([1, 2] as const)('takes all of stage %d', async (stage) => {
    const { tokenizer, initial, values } = await start(stage, stage);
    expect(values).toEqual(valuesOf(goldens[stage].parameters));
    expect(initial).toMatchObject({ changed: {}, redrawn: [] });
    tokenizer.parameters.dispose();
  });

  it('interpolates the positions of another image size, and takes the rest', async () => {
    const { image_size, encoder } = goldens[2].config;
    const { grid, prefix_tokens: prefix } = goldens[2].geometry;
    const { tokenizer, initial, values } = await start(2, 2, { image_size: 2 * image_size });
    const { geometry } = tokenizer;
    const table = 'encoder.positional_embedding';
    const expected = resamplePositions(
      goldens[2].parameters.get(table)!.value.dataSync<'float32'>(),
      encoder.width,
      { front: 0, prefix: 0, grid },
      { front: 0, prefix: 0, grid: geometry.grid },
    );
    expect(values[table]).toEqual([...expected]);
    const front = goldens[2].config.decoder.class_tokens * goldens[2].config.decoder.width;
    const positions = 'decoder.latent_token_positional_embedding';
    const source = valuesOf(goldens[2].parameters);
    expect(values[positions].slice(0, front)).toEqual(source[positions].slice(0, front));
    expect(Object.keys(initial.changed).sort()).toEqual([
      positions,
      'encoder.latent_token_positional_embedding',
      table,
      'latent_tokens',
    ]);
    expect(initial.changed.latent_tokens).toBe(
      `interpolated from ${grid} × ${grid} + ${prefix} to ${geometry.grid} × ${geometry.grid} + ${geometry.prefix_tokens}`,
    );
    for (const [name, theirs] of Object.entries(source))
      if (!(name in initial.changed)) expect(values[name], name).toEqual(theirs);
    const size = geometry.image_size;
    const pixels = tf.tidy(() => tokenizer.forward(tf.fill([1, size, size, 3], 0.5)).image.dataSync());
    expect(pixels.every(Number.isFinite)).toBe(true);
    tokenizer.parameters.dispose();
  });

  it('stage 1 takes what it shares with stage 2, and draws its heads anew', async () => {
    const { tokenizer, initial, values } = await start(2, 1);
    const source = valuesOf(goldens[2].parameters);
    expect(initial.redrawn.sort()).toEqual([
      'decoder.class_embedding',
      'decoder.conv_out_aux.bias',
      'decoder.conv_out_aux.weight',
      'decoder.ffn_aux.0.bias',
      'decoder.ffn_aux.0.weight',
      'quantize.embed_prob',
    ]);
    expect(initial.changed).toEqual({
      'decoder.latent_token_positional_embedding': '1 rows in front drawn anew',
    });
    const positions = 'decoder.latent_token_positional_embedding';
    const { width, class_tokens } = goldens[2].config.decoder;
    expect(values[positions].slice(width)).toEqual(source[positions].slice(class_tokens * width));
    expect(values['decoder.transformer.0.mlp.c_fc.weight']).toEqual(
      source['decoder.transformer.0.mlp.c_fc.weight'],
    );
    expect(values['quantize.embedding.weight']).toEqual(source['quantize.embedding.weight']);
    tokenizer.parameters.dispose();
  });

  it('refuses what does not fit in one line', async () => {
    const attempt = (from: Stage, to: Stage, change: object = {}) =>
      messageOf(tokenizerInit.checkInit(files[from], { ...goldens[from].config, ...change }, to));
    expect(await attempt(1, 2)).toMatch(
      /is a tokenizer of stage 1, .* name it with --from instead of --init/,
    );
    const { patch_size, image_size } = goldens[2].config;
    expect(await attempt(2, 2, { patch_size: patch_size * 2, image_size })).toMatch(
      `has tokenizer.patch_size ${patch_size}, but the config sets ${patch_size * 2}; leave tokenizer.patch_size out`,
    );
    expect(await attempt(2, 1, { encoder: { ...goldens[2].config.encoder, heads: 1 } })).toMatch(
      /has tokenizer\.encoder\.heads 3, but the config sets 1/,
    );
    expect(await messageOf(tokenizerInit.defaultsFrom(GENERATOR))).toMatch(
      /holds a generator; a tokenizer is needed here/,
    );
  });
});
