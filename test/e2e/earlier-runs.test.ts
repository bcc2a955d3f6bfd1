import { createHash } from 'node:crypto';
import { cp, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import { openSafetensors } from '../../src/formats/safetensors.js';
import { TIMING_COLUMNS } from '../../src/run/metrics.js';
import { runIn, temporaryFolder, useOneThread } from './alitok.js';

/**
 * Runs and a token cache written by alitok of November 2026 (commit d733981), each stopped by SIGTERM midway, and the
 * results after that version resumed them: SHA-256 of the tensors of each file, of the state, and of the metrics.
 */
const EARLIER = fileURLToPath(new URL('../fixtures/earlier', import.meta.url));
const EXPECTED: Record<string, string> = JSON.parse(await readFile(join(EARLIER, 'expected.json'), 'utf8'));

const at = await temporaryFolder();
useOneThread();

/** SHA-256 of the reproducible content of a file: names, shapes and bytes of tensors; metrics without times. */
async function digest(path: string): Promise<string> {
  const hash = createHash('sha256');
  if (path.endsWith('.safetensors')) {
    const file = await openSafetensors(path);
    for (const [name, { shape }] of [...file.tensors].sort(([a], [b]) => (a < b ? -1 : 1))) {
      hash.update(`${name} ${shape.join()}\n`);
      hash.update(await file.read(name));
    }
    await file.close();
    return hash.digest('hex');
  }
  for (const line of (await readFile(path, 'utf8')).trimEnd().split('\n')) {
    const row = JSON.parse(line);
    if (path.endsWith('metrics.jsonl')) for (const column of TIMING_COLUMNS) delete row[column];
    hash.update(`${JSON.stringify(row)}\n`);
  }
  return hash.digest('hex');
}

/** The digests of the expected files in a folder. */
const made = async (folder: string) =>
  Object.fromEntries(
    await Promise.all(
      Object.keys(EXPECTED)
        .filter((path) => path.startsWith(folder))
        .map(async (path) => [path, await digest(at('runs', path))]),
    ),
  );
const expected = (folder: string) =>
  Object.fromEntries(Object.entries(EXPECTED).filter(([path]) => path.startsWith(folder)));

describe('runs of an earlier version resume to the same bits', () => {
  beforeAll(() => cp(EARLIER, at('runs'), { recursive: true }));

  const images = ['-d', 'pictures.tar'];
  const longer = 'tokenizer_training.stage1.phases.0.steps=60';
  it.each([
    ['clustering/stage1', ['train-tokenizer', '--stage', '1', ...images, '-r', 'clustering', longer]],
    ['tokenizer/stage2', ['train-tokenizer', '--stage', '2', ...images, '-r', 'tokenizer']],
    [
      'generator',
      ['train-ar', '--tokens', 'tokens.safetensors', '--tokenizer', 'tokenizer', '-r', 'generator'],
    ],
    ['features', ['train-features', ...images, '-r', 'features']],
  ])('%s', async (folder, command) => {
    const { code, stderr } = await runIn(at('runs'), ...command, '-c', 'config.yaml', '--resume');
    expect(code, stderr).toBe(0);
    expect(Object.keys(expected(folder)).length).toBeGreaterThan(3);
    expect(await made(folder)).toEqual(expected(folder));
  });
});
