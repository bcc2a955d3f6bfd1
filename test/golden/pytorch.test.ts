import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { openTensorFile } from '../../src/checkpoint/open.js';

const FOLDER = fileURLToPath(new URL('../fixtures/goldens', import.meta.url));

/**
 * Each PyTorch file and the safetensors file with the same parameters under `w.`. The training file was saved after the
 * clustering update; the safetensors file has its results under `after.`.
 */
describe.each([
  ['generator.bin', 'generator'],
  ['tokenizer_stage2.pth', 'tokenizer_stage2'],
  ['tokenizer_stage2_legacy.pth', 'tokenizer_stage2'],
  ['tokenizer_stage1_last.pth', 'tokenizer_stage1'],
])('%s, written by PyTorch', (name, same) => {
  it('has the names, shapes and values of the safetensors file', async () => {
    const file = await openTensorFile(join(FOLDER, name));
    const expected = await openTensorFile(join(FOLDER, `${same}.safetensors`));
    const names = [...expected.tensors.keys()].filter((key) => key.startsWith('w.'));
    expect([...file.tensors.keys()].map((key) => `w.${key}`).sort()).toEqual(names.sort());
    for (const key of names) {
      expect(file.tensors.get(key.slice(2))).toMatchObject({ shape: expected.tensors.get(key)!.shape });
      const after = key.replace('w.', 'after.');
      const source = name.includes('last') && expected.tensors.has(after) ? after : key;
      expect(await file.read(key.slice(2))).toEqual(await expected.read(source));
    }
    await file.close();
    await expected.close();
  });
});
