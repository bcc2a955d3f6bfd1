import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { convert } from '../../src/checkpoint/convert.js';
import { kindOf } from '../../src/checkpoint/kinds.js';
import { openTensorFile } from '../../src/checkpoint/open.js';
import { fingerprint, inferTokenizer, loadTokenizer, saveTokenizer } from '../../src/checkpoint/tokenizer.js';
import { fillByFormula } from '../../src/doctor/formula.js';
import { CheckpointError } from '../../src/errors.js';
import type { Stage, TokenizerConfig } from '../../src/models/geometry.js';
import { Tokenizer } from '../../src/models/tokenizer/tokenizer.js';
import { openTokenizer } from '../golden/tokenizer.js';
import { copyTensors } from '../support/copy-tensors.js';
import { openTested } from '../support/engines.js';
import { TOKENIZER } from '../support/small-sizes.js';

let folder: string;
beforeAll(async () => {
  await openTested('wasm');
  folder = await mkdtemp(join(tmpdir(), 'tokenizer-file-'));
});
afterAll(() => rm(folder, { recursive: true }));

const VQ = { ...TOKENIZER, prefix_tokens: null, quantizer: 'vq', l2_normalize: false, fsq_levels: null };
const FSQ = { ...VQ, quantizer: 'fsq', fsq_levels: [2, 2, 2, 2] };

/** A tokenizer with weights that are the same in every version. */
function create(config: TokenizerConfig, stage: Stage = 1): Tokenizer {
  const tokenizer = new Tokenizer(config, stage);
  fillByFormula(tokenizer.parameters, 100);
  return tokenizer;
}

/** Saves a tokenizer with another description, or with none, in its metadata; as a PyTorch file if its name is one's. */
async function saveAs(name: string, tokenizer: Tokenizer, description?: unknown): Promise<string> {
  const [own, path] = [join(folder, 'own.safetensors'), join(folder, name)];
  await saveTokenizer(own, tokenizer);
  await copyTensors(own, path, description ? { alitok: JSON.stringify(description) } : {});
  return path;
}

describe('a tokenizer file', () => {
  it('that names no quantizer and no prefix has the published ones, with the fingerprint it has always had', async () => {
    const { quantizer: _, fsq_levels: __, prefix_tokens: ___, ...sizes } = VQ;
    const older = await saveAs('older.safetensors', create(VQ), {
      kind: 'tokenizer',
      stage: 1,
      tokenizer: sizes,
    });
    const loaded = await loadTokenizer(older);
    expect(loaded.config).toEqual(VQ);
    // As computed by the last version with a single quantizer.
    expect(await fingerprint(loaded)).toBe('be1d3fbee93cf1f1');
  });

  it('of FSQ is identified by its levels, which no tensor shows', async () => {
    const prints = await Promise.all(
      [FSQ, { ...FSQ, token_size: 4, codebook_size: 24, fsq_levels: [2, 2, 2, 3] }].map((config) =>
        fingerprint(create(config)),
      ),
    );
    expect(prints[0]).not.toBe(prints[1]);
  });

  it('of SimVQ is identified by its frozen codebook too', async () => {
    const tokenizer = create({ ...VQ, quantizer: 'simvq' });
    const before = await fingerprint(tokenizer);
    const frozen = tokenizer.parameters.get('quantize.embedding.weight')!;
    frozen.value = frozen.value.add(1);
    expect(await fingerprint(tokenizer)).not.toBe(before);
  });

  it('is refused with an unknown quantizer, or settings that do not match it', async () => {
    for (const [tokenizer, message] of [
      [{ ...VQ, quantizer: 'lfq' }, /tokenizer\.quantizer: .*"vq"\|/],
      [{ ...FSQ, fsq_levels: null }, /tokenizer\.fsq_levels: is missing/],
      [{ ...FSQ, fsq_levels: [4, 4] }, /tokenizer\.fsq_levels: \[4, 4\] makes 16 codes of 2 numbers/],
      [{ ...FSQ, fsq_levels: [2, 1e9] }, /tokenizer\.fsq_levels\.1: /],
      [{ ...FSQ, l2_normalize: true }, /tokenizer\.l2_normalize: /],
      [{ ...FSQ, prefix_tokens: 4 }, /tokenizer\.prefix_tokens: must be 2 or 3, .* and not 4/],
      [{ ...FSQ, prefix_tokens: 0 }, /tokenizer\.prefix_tokens: /],
    ] as const) {
      const path = await saveAs('wrong.safetensors', create(FSQ), { kind: 'tokenizer', stage: 1, tokenizer });
      for (const open of [loadTokenizer, kindOf]) {
        await expect(open(path)).rejects.toThrow(CheckpointError);
        await expect(open(path)).rejects.toThrow(message);
      }
    }
  });

  it('of FSQ cannot be read without its description', async () => {
    const path = await saveAs('bare.safetensors', create(FSQ));
    await expect(loadTokenizer(path)).rejects.toThrow(
      /has no codebook \(quantize\.embedding\.weight\), and no description/,
    );
  });
});

describe.each([1, 2] as const)('the prefix of a tokenizer of stage %i', (stage) => {
  it.each([
    ['grid', 4, 4],
    ['grid + 1', 5, null],
  ])('of %s tokens is read from its description and from its tensors', async (_, prefix_tokens, read) => {
    const { tokenizer: golden, images } = await openTokenizer(stage);
    const { encoder, decoder } = golden.config;
    const tokenizer = create({ ...golden.config, prefix_tokens }, stage);
    const codes = tokenizer.tokenize(images);
    expect(codes.shape).toEqual([images.shape[0], 16 + prefix_tokens]);
    const expected = [...tokenizer.detokenize(codes).dataSync()];

    const bare = await saveAs('bare.pth', tokenizer);
    const file = await openTensorFile(bare);
    const inferred = inferTokenizer(file);
    await file.close();
    expect(inferred).toMatchObject({
      stage,
      tokenizer: { image_size: 32, patch_size: 8, prefix_tokens: read },
    });
    // The heads of these widths are not known.
    const heads = Object.entries({ encoder, decoder }).map(
      ([part, { heads }]) => `tokenizer.${part}.heads=${heads}`,
    );
    const [described, own] = ['described.pth', 'own.safetensors'].map((name) => join(folder, name));
    await convert({ source: bare, target: described, config: { overrides: heads } });
    await saveTokenizer(own, tokenizer);
    for (const path of [described, own]) {
      const loaded = await loadTokenizer(path);
      expect(loaded.config.prefix_tokens).toBe(read);
      expect([...loaded.tokenize(images).dataSync()]).toEqual([...codes.dataSync()]);
      expect([...loaded.detokenize(codes).dataSync()]).toEqual(expected);
    }
  });

  it('has one of two lengths', async () => {
    for (const prefix_tokens of [1, 4]) {
      const path = await saveAs('odd.pth', create({ ...VQ, prefix_tokens }, stage));
      await expect(loadTokenizer(path)).rejects.toThrow(
        `${path} has 4 patches and ${4 + prefix_tokens} tokens an image; a tokenizer has g² patches and g² + g or g² + g + 1 tokens`,
      );
    }
  });
});
