import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import crc32c from 'crc-32/crc32c.js';
import sharp from 'sharp';
import { afterAll, expect, it } from 'vitest';
import { eventRecord } from '../../src/formats/tfevents.js';
import { countsHistogram } from '../../src/run/events.js';
import { openRunLog } from '../../src/run/log.js';
import { readMetrics } from '../../src/run/metrics.js';
import { runFiles } from '../../src/run/record.js';
import { fields, readEvents, records } from '../tensorboard/decode.js';

const folder = await mkdtemp(join(tmpdir(), 'alitok-tensorboard-'));
afterAll(() => rm(folder, { recursive: true }));

const READER = 'test/tensorboard/read.py';
const python = process.env.TENSORBOARD_PYTHON ?? 'python3';
const tensorboard = spawnSync(python, ['-c', 'import tensorboard']).status === 0;

const text = (bytes: unknown) => Buffer.from(bytes as Uint8Array).toString();

it('frames a record like TFRecord', () => {
  expect(crc32c.str('123456789') >>> 0).toBe(0xe3069283); // the check value of CRC-32C
  const record = eventRecord(1.5, 3, { version: true });
  expect(record.readBigUInt64LE(0)).toBe(26n);
  // event.proto: wall_time = 1 (double), step = 2 (varint), file_version = 3 (13 bytes)
  expect(record.subarray(12, 38).toString('hex')).toBe(
    ['09000000000000f83f', '1003', '1a0d', Buffer.from('brain.Event:2').toString('hex')].join(''),
  );
  expect(records(record)).toHaveLength(1);
});

it('counts zeros separately, and other values by powers of two', () => {
  expect(countsHistogram([0, 0, 1, 2, 3, 4, 9])).toEqual({
    min: 0,
    max: 9,
    count: 7,
    sum: 19,
    sumOfSquares: 111,
    limits: [0.5, 1.5, 3.5, 7.5, 15.5],
    counts: [2, 1, 2, 1, 1],
  });
});

const png = (shade: number) =>
  sharp({ create: { width: 6, height: 4, channels: 3, background: { r: shade, g: 0, b: 0 } } })
    .png()
    .toBuffer();

const pictures = [await png(10), await png(20), await png(30)];
const files = runFiles(folder);

/** Records steps 1 to 4 with a preview at 2 and 4, is stopped, and goes on from step 2. */
async function recordResumedRun(): Promise<void> {
  const first = await openRunLog(files, 0, { tensorboard: true });
  for (const step of [1, 2, 3, 4]) {
    await first.append({ step, loss: 1 / step });
    if (step % 2 === 0)
      await first.show(step, {
        metrics: { validation_psnr: 10 + step },
        pictures: { reconstruction: pictures[step / 2 - 1] },
        codeCounts: [0, 3, step],
      });
  }
  const second = await openRunLog(files, 2, { tensorboard: true });
  await second.append({ step: 3, loss: 7 });
  await second.show(3, { metrics: {}, pictures: { reconstruction: pictures[2] }, codeCounts: [1, 1, 1] });
}

await recordResumedRun();
const names = (await readdir(files.tensorboard)).sort();

it('writes the same values as the logs, each start in a file that sorts after the one before', async () => {
  expect(names).toHaveLength(2);
  const [first, second] = await Promise.all(names.map((name) => readFile(join(files.tensorboard, name))));
  const events = records(first).map(fields);
  expect(text(events[0].get(3)![0])).toBe('brain.Event:2');
  const values = await readEvents(files.tensorboard);
  const losses = values.filter(({ tag }) => tag === 'loss');
  expect(losses.map(({ step, value }) => [step, value.get(2)![0]])).toEqual([
    [1, 1],
    [2, 0.5],
    [3, 7],
  ]);
  const image = fields(values.find(({ tag }) => tag === 'reconstruction')!.value.get(4)![0] as Uint8Array);
  expect([1, 2, 3].map((field) => image.get(field)![0])).toEqual([4, 6, 3]);
  expect(Buffer.from(image.get(4)![0] as Uint8Array).equals(pictures[0])).toBe(true);
  const start = records(second).map(fields)[1];
  expect(start.get(2)).toEqual([3]);
  expect(fields(start.get(7)![0] as Uint8Array).get(1)).toEqual([1]); // SessionLog.START
  expect((await readMetrics(files.metrics)).filter((row) => 'loss' in row).map((row) => row.loss)).toEqual([
    1, 0.5, 7,
  ]);
  expect((await readMetrics(files.codeCounts)).map(({ step, counts }) => [step, counts])).toEqual([
    [2, [0, 3, 2]],
    [3, [1, 1, 1]],
  ]);
});

it('continues after a file with a future timestamp', async () => {
  const at = join(folder, 'skewed');
  const skewed = { ...runFiles(at), metrics: files.metrics, codeCounts: files.codeCounts };
  await openRunLog(skewed, 2, { tensorboard: true });
  await writeFile(join(skewed.tensorboard, 'events.out.tfevents.9999999990.host.1'), '');
  await openRunLog(skewed, 2, { tensorboard: true });
  expect((await readdir(skewed.tensorboard)).sort().at(-1)).toBe('events.out.tfevents.9999999991.alitok');
});

it('writes no events when they are disabled', async () => {
  const other = runFiles(join(folder, 'none'));
  await expect(openRunLog(other, 0, { tensorboard: false })).rejects.toThrow('its folder does not exist');
  await openRunLog({ ...other, metrics: files.metrics }, 9, { tensorboard: false });
  expect(await readdir(folder)).not.toContain('none');
});

it.skipIf(!tensorboard)("is readable by TensorBoard's own reader, without repeated steps", () => {
  const { stdout, stderr } = spawnSync(python, [READER, files.tensorboard], { encoding: 'utf8' });
  if (stdout === '') throw new Error(stderr);
  const hash = (data: Buffer) => createHash('sha256').update(data).digest('hex');
  expect(JSON.parse(stdout)).toEqual({
    version: 2,
    scalars: {
      loss: [
        [1, 1],
        [2, 0.5],
        [3, 7],
      ],
      validation_psnr: [[2, 12]],
    },
    images: {
      reconstruction: [
        [2, 6, 4, hash(pictures[0])],
        [3, 6, 4, hash(pictures[2])],
      ],
    },
    histograms: {
      code_counts: [
        [2, 3, [0.5, 1.5, 3.5], [1, 0, 2]],
        [3, 3, [0.5, 1.5], [0, 3]],
      ],
    },
  });
});
