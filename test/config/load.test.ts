import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { configToYaml, loadConfig, resolveConfig } from '../../src/config/load.js';
import { parseConfig } from '../../src/config/schema.js';
import { ConfigError } from '../../src/errors.js';
import { QUANTIZER_NAMES } from '../../src/models/tokenizer/quantizers/index.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'alitok-config-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

function write(name: string, text: string): string {
  const file = join(folder, name);
  mkdirSync(join(file, '..'), { recursive: true });
  writeFileSync(file, text);
  return file;
}

/** The one-line error of loading, without the path of the test folder. */
function errorOf(load: () => unknown): string {
  try {
    load();
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    const { message } = error as Error;
    expect(message).not.toContain('\n');
    return message.replaceAll(`${folder}/`, '');
  }
  throw new Error('no error');
}

const overrideError = (...overrides: string[]) => errorOf(() => loadConfig(undefined, overrides));
const fileError = (text: string) => errorOf(() => loadConfig(write('a.yaml', text)));

describe('configs/', () => {
  const load = (name: string, ...overrides: string[]) => loadConfig(join('configs', name), overrides);

  it.each(readdirSync('configs'))('%s is valid and has its own name', (file) => {
    expect(load(file).name).toBe(file.replace('.yaml', ''));
  });

  it('the published files match the defaults', () => {
    const defaults = loadConfig(undefined);
    expect(load('tokenizer.yaml')).toEqual({ ...defaults, name: 'tokenizer' });
    expect(load('alitok_b.yaml')).toEqual({ ...defaults, name: 'alitok_b' });
  });

  it('the ICLR version has the generators of the first version, and stages of the published lengths', () => {
    const [first, iclr] = [load('tokenizer.yaml'), load('tokenizer_iclr.yaml')];
    const { stage1, stage2 } = iclr.tokenizer_training;
    const stepsOf = ({ phases }: typeof stage1 | typeof stage2) => phases.map(({ steps }) => steps);
    const sum = (numbers: number[]) => numbers.reduce((a, b) => a + b, 0);
    expect([sum(stepsOf(stage1)), sum(stepsOf(stage2))]).toEqual([600_000, 300_000]);
    for (const stage of ['stage1', 'stage2'] as const)
      expect(iclr.tokenizer_training[stage].phases.map(({ steps: _, ...phase }) => phase)).toEqual(
        first.tokenizer_training[stage].phases.map(({ steps: _, ...phase }) => phase),
      );
    // 50, 200 and 100 of 350 thousand steps.
    stepsOf(stage1).forEach((steps, i) => {
      expect(Math.abs(steps - (stepsOf(first.tokenizer_training.stage1)[i] * 600) / 350)).toBeLessThan(500);
    });
    for (const size of ['b', 'l', 'xl']) {
      const { tokenizer, tokenizer_training } = iclr;
      const name = `alitok_${size}_iclr`;
      expect(load(`${name}.yaml`)).toEqual({
        ...load(`alitok_${size}.yaml`),
        name,
        tokenizer,
        tokenizer_training,
      });
    }
  });

  it('L and XL differ from B only where the publication does', () => {
    const b = load('alitok_b.yaml');
    expect(load('alitok_l.yaml')).toEqual({
      ...b,
      name: 'alitok_l',
      generator: { ...b.generator, width: 1024 },
      sample: { ...b.sample, guidance_scale: 6, guidance_power: 0.7 },
    });
    expect(load('alitok_xl.yaml')).toEqual({
      ...b,
      name: 'alitok_xl',
      generator: { ...b.generator, width: 1280, layers: 32 },
      generator_training: { ...b.generator_training, steps: 250_000 },
      sample: { ...b.sample, guidance_scale: 13, guidance_power: 1.4, seed: 2 },
    });
  });
});

describe('values', () => {
  it('a constant learning rate ends at its start value, also when it is overridden', () => {
    const [phase] = loadConfig(undefined, ['tokenizer_training.stage1.phases.0.lr=3e-4']).tokenizer_training
      .stage1.phases;
    expect(phase).toMatchObject({ steps: 50_000, lr: 3e-4, lr_end: 3e-4 });
  });

  it('overrides can set sections, list entries and empty values; the last one wins', () => {
    const phases = 'tokenizer_training.stage2.phases';
    const config = loadConfig('configs/quickstart.yaml', [
      'seed=1',
      'seed=2',
      'data.train=a folder/of images',
      `${phases}.0.early_stop.patience_steps=5`,
      `${phases}.0.early_stop.min_delta=1e-3`,
      'generator={width: 64, heads: 2}',
    ]);
    expect(config.seed).toBe(2);
    expect(config.data.train).toBe('a folder/of images');
    expect(config.tokenizer_training.stage2.phases).toMatchObject([
      { steps: 2000, early_stop: { patience_steps: 5, min_delta: 1e-3 } },
    ]);
    expect(config.generator).toMatchObject({ width: 64, heads: 2, classes: 1000 });
    const published = loadConfig(undefined, [`${phases}.2.steps=7`]).tokenizer_training.stage2.phases;
    expect(published.map(({ steps }) => steps)).toEqual([50_000, 150_000, 7]);
    expect(loadConfig(undefined).tokenizer_training.stage2.phases[2].steps).toBe(100_000);
  });

  it('extends merges sections and replaces lists, relative to the file', () => {
    write(
      'base/base.yaml',
      'seed: 3\ntokenizer: { image_size: 64, patch_size: 8 }\n' +
        'tokenizer_training: { stage1: { phases: [{ steps: 1, lr: 1 }, { steps: 2, lr: 1 }] } }',
    );
    const file = write(
      'child.yaml',
      'extends: base/base.yaml\ntokenizer: { patch_size: 4 }\n' +
        'tokenizer_training: { stage1: { phases: [{ steps: 9, lr: 1 }] } }',
    );
    const config = loadConfig(file);
    expect(config.seed).toBe(3);
    expect(config.tokenizer).toMatchObject({ image_size: 64, patch_size: 4 });
    expect(config.tokenizer_training.stage1.phases.map(({ steps }) => steps)).toEqual([9]);
  });

  it('is the same after it has been written and read', () => {
    const config = loadConfig('configs/cifar10.yaml', ['name="12"', 'data.train="x: y"']);
    expect(loadConfig(write('round.yaml', configToYaml(config)))).toEqual(config);
  });

  it('the clustering update is on by default if the quantizer has one', () => {
    const clustering = (...overrides: string[]) =>
      loadConfig(undefined, overrides).tokenizer_training.stage1.clustering;
    expect(clustering()).toBe(true);
    expect(clustering('tokenizer_training.stage1.clustering=false')).toBe(false);
    expect(clustering('tokenizer.quantizer=simvq')).toBe(false);
    const simvq = write('simvq.yaml', configToYaml(loadConfig(undefined, ['tokenizer.quantizer=simvq'])));
    expect(loadConfig(simvq).tokenizer_training.stage1.clustering).toBe(false);
  });

  it('a prefix of the published length is the same as none', () => {
    const prefix = (...overrides: string[]) => loadConfig(undefined, overrides).tokenizer.prefix_tokens;
    expect(prefix()).toBeNull();
    expect(prefix('tokenizer.prefix_tokens=17')).toBeNull();
    expect(prefix('tokenizer.prefix_tokens=16')).toBe(16);
    expect(
      prefix('tokenizer.prefix_tokens=16', 'tokenizer.patch_size=17', 'tokenizer.image_size=255'),
    ).toBeNull();
  });

  it('cannot be changed', () => {
    const config = loadConfig(undefined);
    expect(() => {
      config.tokenizer_training.stage1.phases[0].steps = 1;
    }).toThrow(TypeError);
  });
});

describe('errors name the file, the key and the problem', () => {
  it.each([
    [
      'tokenizer:\n  codebok_size: 8',
      'a.yaml:2: tokenizer.codebok_size: unknown key; did you mean codebook_size?',
    ],
    [
      'tokenizer_training: { stage1: { phases: [{ steps: 1, lr: 1, wlpips: 1 }] } }',
      'a.yaml:1: tokenizer_training.stage1.phases.0.wlpips: unknown key; did you mean w_lpips?',
    ],
    [
      'discriminator:\n  depth: 1',
      'a.yaml:2: discriminator.depth: unknown key; known keys: hidden_channels, stages',
    ],
    ['seed: 1\nname: [a]', 'a.yaml:2: name: expected string, got a list'],
    ['sample: { seed: 1.5 }', 'a.yaml:1: sample.seed: expected whole number, got 1.5'],
    ['sample: { seed: many }', 'a.yaml:1: sample.seed: expected number, got "many"'],
    ['sample:', 'a.yaml:1: sample: expected section, got null'],
    [
      'tokenizer_training: { stage1: { phases: [{ lr: 1 }] } }',
      'a.yaml:1: tokenizer_training.stage1.phases.0.steps: is missing, expected number',
    ],
    [
      'tokenizer: { quantizer: fqs }',
      `a.yaml:1: tokenizer.quantizer: expected one of ${QUANTIZER_NAMES.map((name) => `"${name}"`).join('|')}, got "fqs"`,
    ],
    ['tokenizer:\n  quantiser: fsq', 'a.yaml:2: tokenizer.quantiser: unknown key; did you mean quantizer?'],
    ['tokenize: { crops: all }', 'a.yaml:1: tokenize.crops: expected one of "ten-crop"|"flip", got "all"'],
    ['generator: { dropout: 1 }', 'a.yaml:1: generator.dropout: expected number to be <1, got 1'],
    [
      'sample: { seed: -1, top_p: 2 }',
      'a.yaml:1: sample.top_p: expected number to be <=1, got 2 (and 1 more)',
    ],
    ['seed: 1\nseed: 2', 'a.yaml:2:1: not valid YAML: Map keys must be unique'],
    ['name: "x', 'a.yaml:1:9: not valid YAML: Missing closing "quote'],
    ['- seed', 'a.yaml: must hold sections and keys, not one value or list'],
    ['extends: a.yaml', 'a.yaml: extends: leads in a circle back to a.yaml'],
    ['extends: none.yaml', 'config file none.yaml: not found'],
  ])('%j', (text, message) => {
    expect(fileError(text)).toBe(message);
  });

  it('in a file that another one extends', () => {
    write('old.yaml', 'seed: 1\nwidth: 3');
    expect(fileError('extends: old.yaml')).toMatch(/^old\.yaml:2: width: unknown key/);
  });

  it.each([
    ['tokenizer.image_size', 'must have the form key.sub=value, such as tokenizer.image_size=64'],
    ['A b=1', 'A b is not a key; keys look like tokenizer.encoder.width'],
    ['__proto__.x=1', '__proto__.x is not a key; keys look like tokenizer.encoder.width'],
    ['name={', 'the value is not valid YAML'],
    ['seed.x=1', 'seed: expected number, got a section'],
    [
      'tokenizer_training.stage1.phases.3.steps=1',
      'tokenizer_training.stage1.phases is a list of 3; its entries are tokenizer_training.stage1.phases.0 to tokenizer_training.stage1.phases.2',
    ],
    ['tokeniser.image_size=1', 'tokeniser: unknown key; did you mean tokenizer?'],
    ['constructor.x=1', /constructor: unknown key; known keys: name, seed/],
    [
      'tokenizer_training.stage1.phases=[]',
      'tokenizer_training.stage1.phases: expected list to have >=1 items',
    ],
    [
      'tokenizer_training.stage1.phases.0.lr=0',
      'tokenizer_training.stage1.phases.0.lr: expected number to be >0, got 0',
    ],
    ['tokenizer_training.init_std=3', 'tokenizer_training.init_std: expected number to be <=2, got 3'],
    ['generator_training.steps=0', 'generator_training.steps: expected number to be >=1, got 0'],
    [
      'tokenizer.image_size=100',
      'tokenizer.image_size: must be a multiple of tokenizer.patch_size: 100 is not one of 16',
    ],
    [
      'tokenizer.prefix_tokens=15',
      'tokenizer.prefix_tokens: must be 16 or 17, for tokenizer.image_size / tokenizer.patch_size = 16 patches a row, and not 15',
    ],
    ['tokenizer.prefix_tokens=0', 'tokenizer.prefix_tokens: expected number to be >=1, got 0'],
    ['tokenizer.encoder.width=100', /must be a multiple of tokenizer\.encoder\.heads: 100 is not one of 12/],
    ['generator.width=96', /must give each of generator\.heads a multiple of 4 channels.*96 \/ 16 = 6/],
    ['discriminator.hidden_channels=48', /must be a multiple of its 32 groups/],
    ['features.channels.1=60', 'features.channels.1: must be a multiple of 8, got 60'],
    ['data.train_list=x', 'data.train_list: needs data.train, the folder that its paths start from'],
    [
      'tokenizer_training.stage2.clustering=true',
      /must be false, because stage 2 does not change the codebook/,
    ],
  ])('override %s', (override, message) => {
    const [start, rest] = [`override ${override}: `, overrideError(override)];
    expect(rest.slice(0, start.length)).toBe(start);
    if (typeof message === 'string') expect(rest.slice(start.length)).toContain(message);
    else expect(rest.slice(start.length)).toMatch(message);
  });

  it('override into a value', () => {
    const file = write('a.yaml', 'seed: 1');
    expect(errorOf(() => loadConfig(file, ['seed.x=1']))).toBe(
      'override seed.x=1: seed has no keys of its own',
    );
  });

  it('generator_training.batch_size is checked against accumulation', () => {
    expect(overrideError('generator_training.accumulation=3')).toBe(
      'defaults: generator_training.batch_size: must be a multiple of generator_training.accumulation: 2048 is not one of 3',
    );
  });

  it('of an object from another source', () => {
    expect(errorOf(() => parseConfig({ seed: 'x' }, 'model.safetensors'))).toBe(
      'model.safetensors: seed: expected number, got "x"',
    );
  });

  it('names where defaults come from in an error about them', () => {
    const defaults = {
      from: '--init weights.bin',
      values: { sample: { newer: 1 }, tokenizer: { patch_size: 7 } },
    };
    expect(() => resolveConfig(undefined, [], defaults)).toThrow(
      /^--init weights\.bin: sample\.newer: unknown key/,
    );
    const known = { ...defaults, values: { tokenizer: { patch_size: 7 } } };
    expect(() => resolveConfig(undefined, ['tokenizer.patch_size=0'], known)).toThrow(
      /^override tokenizer\.patch_size=0/,
    );
    expect(() => resolveConfig(undefined, ['seed=-1'], known)).toThrow(/^override seed=-1/);
    expect(resolveConfig(undefined, ['tokenizer.image_size=14'], known).config.tokenizer.patch_size).toBe(7);
  });
});
