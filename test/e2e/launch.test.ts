import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import { encodePng } from '../../src/data/images/png.js';
import { drawPicture, PICTURE_CLASSES } from '../../src/quickstart/pictures.js';
import { Random } from '../../src/random.js';
import { tarOf } from '../support/tar.js';
import { startWith, succeed, TINY, temporaryFolder, tinyRun, useOneThread } from './alitok.js';

const at = await temporaryFolder();
useOneThread();
const DIES_ONCE = fileURLToPath(new URL('../fixtures/dies-once.mjs', import.meta.url));

/** Runs a command by `launch`; the first attempt is killed when a file exists. */
async function killedOnce(file: string, restarts: number, args: string[]) {
  const environment = { NODE_OPTIONS: `--import=${DIES_ONCE}`, DIES_WHEN: file };
  const launch = ['launch', '-p', '1', '--max-restarts', String(restarts), '--'];
  return startWith(environment, ...launch, ...args).outcome;
}

/** Two tar files whose names begin like those of training commands. */
async function writeShards(): Promise<void> {
  for (const shard of [0, 1]) {
    const entries = PICTURE_CLASSES.map(async (name) => {
      const data = drawPicture(name, 16, Random.of(shard, name));
      const content = await encodePng({ width: 16, height: 16, data });
      return { path: `${name}/${shard}.png`, content };
    });
    await writeFile(at(`shards/train-000${shard}.tar`), tarOf(...(await Promise.all(entries))));
  }
}

beforeAll(async () => {
  await tinyRun(at());
  await mkdir(at('shards'));
  await writeShards();
});

describe('launch --max-restarts', () => {
  const again = /restart 1 of at most 2/;

  it('restarts a command that has no --resume, whatever its arguments begin with', async () => {
    const tokenize = (out: string) => [
      ...['tokenize', '-c', TINY, '--tokenizer', at('tokenizer')],
      ...['-d', at('shards/train-{0000..0001}.tar'), '-o', at(out), 'tokenize.batch_size=2'],
    ];
    await succeed(...tokenize('whole.safetensors'));
    const partial = at('restarted.safetensors.partial/codes');
    const { code, stderr, stdout } = await killedOnce(partial, 2, tokenize('restarted.safetensors'));
    expect(code, stderr).toBe(0);
    expect(stderr).toMatch(again);
    expect(stderr).toMatch(/rank 0 ended by SIGKILL/);
    expect(stdout).toMatch(/24 images in .*restarted\.safetensors/);
    expect(await readFile(at('restarted.safetensors'))).toEqual(await readFile(at('whole.safetensors')));
  });

  it.each([[[]], [['--resume', 'auto']], [['--resume=auto']]])(
    'resumes training, with %j given',
    async (given) => {
      const run = at(`generator-${given.length}`);
      const many = ['generator_training.steps=60', 'logging.checkpoint_every=10'];
      const train = [
        'train-ar',
        '-c',
        TINY,
        '--tokens',
        at('tokens.safetensors'),
        '-r',
        run,
        ...given,
        ...many,
      ];
      const { code, stderr } = await killedOnce(`${run}/checkpoints/step-0000010`, 2, train);
      expect(code, stderr).toBe(0);
      expect(stderr).toMatch(again);
      expect(stderr).toMatch(/generator: resumed from step [1-5]0/);
      const { starts } = JSON.parse(await readFile(`${run}/run.json`, 'utf8'));
      expect(starts).toHaveLength(2);
      expect(starts[1].command.match(/--resume/g)).toHaveLength(1);
    },
  );

  it('ends with the exit code of the failure when there are no restarts left', async () => {
    const run = at('no-restart');
    const train = ['train-ar', '-c', TINY, '--tokens', at('tokens.safetensors'), '-r', run];
    const { code, stderr } = await killedOnce(`${run}/run.json`, 0, train);
    expect([code, again.test(stderr)]).toEqual([137, false]);
  });
});

it('launch refuses a wrong option of the command before it starts anything', async () => {
  const { code, stderr } = await startWith({}, 'launch', '--', '--threads', 'none', 'tokenize').outcome;
  expect([code, stderr]).toEqual([2, expect.stringMatching(/'none' is invalid/)]);
});
