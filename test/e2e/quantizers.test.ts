import { readdir, readFile } from 'node:fs/promises';
import { beforeAll, describe, expect, it } from 'vitest';
import { drawPictures } from '../../src/quickstart/pictures.js';
import { alitok, succeed, TINY, temporaryFolder, useOneThread } from './alitok.js';

useOneThread();
const at = await temporaryFolder();

const QUANTIZERS = {
  fsq: ['tokenizer.quantizer=fsq', 'tokenizer.fsq_levels=[2, 2, 2, 2]'],
  simvq: ['tokenizer.quantizer=simvq'],
};

beforeAll(() => drawPictures({ folder: at(), size: 16, perClass: 1, seed: 1, split: 'train' }));

describe.each(Object.entries(QUANTIZERS))('tokenizer.quantizer=%s', (name, overrides) => {
  const [tokenizer, tokens, generator] = ['tokenizer', 'tokens.safetensors', 'generator'].map((part) =>
    at(`${name}-${part}`),
  );
  const config = ['-c', TINY, ...overrides];

  it('trains, tokenizes and samples', async () => {
    await succeed('train-tokenizer', ...config, '-d', at('train'), '-r', tokenizer);
    const written = await readFile(`${tokenizer}/stage2/config.yaml`, 'utf8');
    expect(written).toContain(`quantizer: ${name}\n`);
    expect(written).toContain('clustering: false\n');
    const [first] = (await readFile(`${tokenizer}/stage1/metrics.jsonl`, 'utf8')).split('\n');
    expect('quantizer' in JSON.parse(first)).toBe(name !== 'fsq'); // FSQ has no loss of its own
    await succeed('tokenize', ...config, '--tokenizer', tokenizer, '-d', at('train'), '-o', tokens);
    await succeed('train-ar', ...config, '--tokens', tokens, '--tokenizer', tokenizer, '-r', generator);
    await succeed('sample', '-g', generator, '--tokenizer', tokenizer, '--count', '3', '-o', at(name));
    expect(await readdir(at(name, 'images'))).toHaveLength(3);
  });

  it('is shown by inspect, for the config and for the file', async () => {
    const words =
      name === 'fsq' ? 'fsq, finite scalar quantization, fsq_levels [2,2,2,2]' : 'simvq, vector quant';
    expect((await succeed('inspect', TINY, ...overrides)).stdout).toContain(words);
    const { stdout } = await succeed('inspect', tokenizer);
    expect(stdout).toContain(words);
    expect(stdout).toContain(`tokenizer.quantizer=${name}`);
    expect(stdout).toContain('all names and shapes match');
    // The config that it names can be used unchanged.
    const [, config, fitting] = /^config +(\S+) with (.*)$/m.exec(stdout)!;
    expect((await succeed('inspect', config, ...fitting.split(' '))).stdout).toContain(words);
  });

  it('is stored in a PyTorch file', async () => {
    await succeed('convert', tokenizer, at(`${name}.pth`));
    const { stdout } = await succeed('inspect', at(`${name}.pth`));
    expect(stdout).toMatch(new RegExp(`^quantizer +${name},`, 'm'));
    const { code, stderr } = await alitok('convert', tokenizer, at('no.pth'), 'tokenizer.codebook_size=17');
    expect(code).toBe(name === 'fsq' ? 2 : 4);
    expect(stderr).toMatch(name === 'fsq' ? /makes 16 codes of 4 numbers, not 17 of 4/ : /misshapen/);
  });

  it('is stored with its codes: another quantizer is refused', async () => {
    const other = ['--stage', '2', '--from', tokenizer, '-d', at('train'), '-r', at(`${name}-other`)];
    const { code, stderr } = await alitok('train-tokenizer', '-c', TINY, ...other);
    expect(code).toBe(4);
    expect(stderr).toMatch(/was trained with another tokenizer\.quantizer/);
  });
});
