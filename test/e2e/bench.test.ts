import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { canRun } from '../support/engines.js';
import { alitok, TINY } from './alitok.js';

const lines = (text: string) =>
  text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));

describe('alitok bench', () => {
  it('runs several cases in one process, one line each, with config overrides', async () => {
    const cases = ['sample:2:3', 'train', 'decode:2', 'generator.dropout=0'];
    const { code, stdout, stderr } = await alitok('bench', ...cases, '-c', TINY, '--repeats', '1', '--json');
    expect([code, stderr]).toEqual([0, '']);
    const found = lines(stdout);
    expect(found.map((line) => line.case)).toEqual(['sample:2:3', 'train', 'decode:2']);
    expect(found[0].description).toMatch(/^sample, batch 2, 3 of \d+ codes, weights in float32$/);
    expect(found[1].description).toBe('train the generator, batch 1, no dropout');
    for (const { seconds, images_per_second, share_of_limit, peak_memory } of found)
      for (const number of [seconds, images_per_second, share_of_limit, peak_memory])
        expect(number).toBeGreaterThan(0);
  });

  it.each([
    [['smaple'], /"smaple" is not a case; did you mean sample\?/],
    [['encode:2:3'], /"encode:2:3" is not a case/],
    [['encode:0'], /"encode:0" is not a case/],
    [['generator.dropout=0'], /name at least one case/],
  ])('%s: one line that says what to write', async (words, message) => {
    const { code, stdout, stderr } = await alitok('bench', ...words, '-c', TINY);
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr).toMatch(message);
    expect(stderr.trimEnd()).not.toContain('\n');
  });

  it('refuses more codes than an image has', async () => {
    const { code, stderr } = await alitok('bench', 'sample:1:9', '-c', TINY, '--json');
    expect([code, stderr]).toEqual([
      2,
      'error: sample:1:9: an image of this config has 7 codes; ask for no more\n',
    ]);
  });

  it.runIf(process.platform === 'linux' && canRun('libtorch'))(
    'continues after a case that does not fit in memory',
    async () => {
      const words = `--engine libtorch --threads 1 bench encode:60000 encode --repeats 1 --json -c ${TINY}`;
      const limited = `ulimit -v 3000000; exec "$0" "$1" ${words}`;
      const env = { ...process.env, OPENBLAS_NUM_THREADS: '1' };
      const paths = [process.execPath, 'bin/alitok.js'];
      const { status, stdout, stderr } = spawnSync('/bin/sh', ['-c', limited, ...paths], {
        env,
        encoding: 'utf8',
      });
      const [large, small] = lines(stdout);
      expect(large).toMatchObject({
        case: 'encode:60000',
        error: expect.stringMatching(/can't allocate memory/),
      });
      expect(small.seconds).toBeGreaterThan(0);
      expect(stderr).toMatch(/error: 1 of 2 cases failed: encode:60000\n$/);
      expect(status).toBe(5);
    },
  );
});
