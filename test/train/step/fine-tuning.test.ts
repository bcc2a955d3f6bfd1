import { describe, expect, it } from 'vitest';
import { Generator } from '../../../src/models/generator/generator.js';
import { Tokenizer } from '../../../src/models/tokenizer/tokenizer.js';
import { freeze } from '../../../src/train/step/freeze.js';
import { generatorDepths, layerDecay, tokenizerDepths } from '../../../src/train/step/layer-decay.js';
import { TOKENIZER, TRANSFORMER } from '../../support/small-sizes.js';

const TOKENIZER_CONFIG = { ...TOKENIZER, l2_normalize: false };

const generator = () =>
  new Generator({
    ...{ ...TRANSFORMER, layers: 11, classes: 2, codebook_size: 16 },
    ...{ prefix_tokens: 3, grid: 2 },
  }).parameters;

const frozen = (patterns: string[], parameters = generator()) => {
  freeze(parameters, patterns, 'generator_training');
  return [...parameters].filter((p) => p.frozen).map((p) => p.name);
};

describe('freezing by pattern', () => {
  it('takes names, modules and *', () => {
    expect(frozen(['norm.weight'])).toEqual(['norm.weight']);
    expect(frozen(['blocks.1'])).toHaveLength(11); // not blocks.10
    expect(frozen(['blocks.*.attn.qkv', 'embeddings'])).toHaveLength(23);
    expect(frozen(['*.bias'])).toHaveLength(23);
    expect(frozen([])).toEqual([]);
  });

  it('refuses a pattern without a match, with the nearest name, and a model of which nothing is trained', () => {
    expect(() => frozen(['block.1'])).toThrow(
      /^generator_training\.freeze: no parameter matches block\.1; did you mean blocks\.1\?$/,
    );
    expect(() => frozen(['encoder'])).toThrow(/no parameter matches encoder; `alitok inspect`/);
    expect(() => frozen(['*'])).toThrow(/matches all parameters/);
    expect(() => frozen(['.'])).toThrow(/no parameter matches/); // a dot is a dot
  });
});

/** The depths of all parameters, by the beginning of their names. */
function depthsOf(parameters: Iterable<{ name: string }>, of: (name: string) => number) {
  const depths: Record<string, number> = {};
  for (const { name } of parameters) {
    const layer = /^(.*?\d+|[^.]+\.[^.]+|[^.]+)/.exec(name.replace('.weight', '').replace('.bias', ''))![0];
    expect(depths[layer] ?? of(name), name).toBe(of(name));
    depths[layer] = of(name);
  }
  return depths;
}

describe('layer-wise learning-rate decay', () => {
  it('counts the blocks of the generator, and lets the rows of new classes learn at the full rate', () => {
    const { of, top } = generatorDepths({ layers: 11 });
    const blocks = Object.fromEntries(Array.from({ length: 11 }, (_, i) => [`blocks.${i}`, i]));
    expect(depthsOf(generator(), of)).toEqual({ embeddings: 11, ...blocks, norm: 11, output: 11 });
    expect(top).toBe(11);
  });

  it.each([1, 2] as const)('counts those of the tokenizer, stage %d, from pixels to pixels', (stage) => {
    const { of, top } = tokenizerDepths(TOKENIZER);
    expect(depthsOf(new Tokenizer(TOKENIZER_CONFIG, stage).parameters, of)).toEqual({
      latent_tokens: 0,
      'encoder.patch_embed': 0,
      'encoder.positional_embedding': 0,
      'encoder.latent_token_positional_embedding': 0,
      'encoder.ln_pre': 0,
      'encoder.transformer.0': 1,
      'encoder.transformer.1': 2,
      'encoder.ln_post': 3,
      'encoder.conv_out': 3,
      'quantize.embedding': 3,
      ...(stage === 1 && { 'quantize.embed_prob': 3 }),
      'decoder.decoder_embed': 3,
      'decoder.class_embedding': 3,
      'decoder.latent_token_positional_embedding': 3,
      'decoder.ln_pre': 3,
      'decoder.transformer.0': 4,
      'decoder.transformer.1': 5,
      'decoder.ln_post': 6,
      ...(stage === 1 && { 'decoder.ffn_aux.0': 6, 'decoder.conv_out_aux': 6 }),
      'decoder.ffn.0': 6,
      'decoder.conv_out': 6,
    });
    expect(top).toBe(6);
  });

  it('multiplies the rate by the decay for each layer up to the output', () => {
    const scale = layerDecay(0.5, generatorDepths({ layers: 2 }));
    const names = ['blocks.0.norm1.weight', 'blocks.1.attn.qkv.bias', 'output.bias'];
    expect(names.map((name) => scale({ name } as never))).toEqual([0.25, 0.5, 1]);
  });
});
