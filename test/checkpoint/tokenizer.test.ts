import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { kindOf } from '../../src/checkpoint/kinds.js';
import { openTensorFile } from '../../src/checkpoint/open.js';
import { fingerprint, loadTokenizer, saveTokenizer } from '../../src/checkpoint/tokenizer.js';
import { fillByFormula } from '../../src/doctor/formula.js';
import { CheckpointError } from '../../src/errors.js';
import { writeSafetensors } from '../../src/formats/safetensors.js';
import type { TokenizerConfig } from '../../src/models/geometry.js';
import { Tokenizer } from '../../src/models/tokenizer/tokenizer.js';
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
function create(config: TokenizerConfig): Tokenizer {
  const tokenizer = new Tokenizer(config, 1);
  fillByFormula(tokenizer.parameters, 100);
  return tokenizer;
}

/** Saves a tokenizer with another description, or with none, in its metadata. */
async function saveAs(name: string, tokenizer: Tokenizer, description?: unknown): Promise<string> {
  const [own, path] = [join(folder, 'own.safetensors'), join(folder, name)];
  await saveTokenizer(own, tokenizer);
  const file = await openTensorFile(own);
  const tensors = [...file.tensors].map(([tensor, info]) => ({
    name: tensor,
    ...info,
    data: () => file.read(tensor),
  }));
  await writeSafetensors(path, tensors, description ? { alitok: JSON.stringify(description) } : {});
  await file.close();
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
