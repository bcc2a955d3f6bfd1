import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { loadConfig } from '../../src/config/load.js';
import { CheckpointError, DataError, OutputError } from '../../src/errors.js';
import { openMetricsLog, readMetrics } from '../../src/run/metrics.js';
import { findRun, openRun, type RunOptions } from '../../src/run/record.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'alitok-run-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

describe('a run folder', () => {
  const options: RunOptions = {
    config: loadConfig('configs/quickstart.yaml', ['seed=7']),
    command: 'alitok train-ar --out run',
    engine: { name: 'wasm', description: 'tfjs-backend-wasm 4', threads: 2 },
    inputs: { 'training images': '36 images' },
    training: { label: 'generator', steps: 100 },
  };
  const resume = { ...options, command: 'alitok train-ar --out run --resume' };
  const readRun = (run: string) => JSON.parse(readFileSync(join(run, 'run.json'), 'utf8'));

  it('contains everything needed to repeat the run', async () => {
    const run = join(folder, 'a/b');
    const files = await openRun(run, options);
    expect(readdirSync(run).sort()).toEqual(['config.yaml', 'run.json']);
    expect(loadConfig(join(run, 'config.yaml'))).toEqual(options.config);
    const { name, seed, training, starts } = readRun(run);
    expect(training).toEqual(options.training);
    expect([name, seed, starts.length]).toEqual(['quickstart', 7, 1]);
    expect(starts[0]).toMatchObject({
      command: options.command,
      engine: options.engine,
      versions: { node: process.versions.node, alitok: '0.1.0', tfjs: expect.stringMatching(/^4\./) },
    });
    expect(Math.abs(Date.parse(starts[0].time) - Date.now())).toBeLessThan(60_000);
    expect(files).toMatchObject({ metrics: join(run, 'metrics.jsonl'), log: join(run, 'log.jsonl') });
  });

  it('holds only one run, which can be resumed', async () => {
    for (const fresh of [false, 'auto'] as const) expect(await findRun(folder, fresh)).toBeUndefined();
    await openRun(folder, options);
    await expect(findRun(folder, false)).rejects.toThrow(OutputError);
    await expect(findRun(folder, false)).rejects.toThrow(
      `${folder} already contains a run; continue it with resume`,
    );
    const begun = await findRun(folder, 'auto');
    expect(begun).toEqual(await findRun(folder, true));
    expect(begun!.inputs).toEqual(options.inputs);
    await openRun(folder, resume, begun);
    expect(readRun(folder).starts.map(({ command }: { command: string }) => command)).toEqual([
      options.command,
      resume.command,
    ]);
  });

  it.each(['config.yaml', 'metrics.jsonl', 'images', 'checkpoints', 'tensorboard'])(
    'cannot be a folder that has %s from something else, which is kept',
    async (name) => {
      writeFileSync(join(folder, name), 'mine');
      for (const resume of [false, 'auto', true] as const)
        await expect(findRun(folder, resume)).rejects.toThrow(
          `${folder} contains ${name} but no run.json, so it is not a run folder of alitok`,
        );
      writeFileSync(join(folder, 'run.json'), '{"name": "a run of something else"}');
      await expect(findRun(folder, 'auto')).rejects.toThrow(/run\.json is not the record of a run/);
      expect(readFileSync(join(folder, name), 'utf8')).toBe('mine');
    },
  );

  it('cannot be resumed without a run', async () => {
    await expect(findRun(join(folder, 'none'), true)).rejects.toThrow(CheckpointError);
  });

  it('reports a damaged run.json and a path that is not a folder', async () => {
    writeFileSync(join(folder, 'run.json'), '{');
    await expect(findRun(folder, true)).rejects.toThrow(CheckpointError);
    await expect(openRun(join(folder, 'run.json/run'), options)).rejects.toThrow(OutputError);
  });
});

describe('the metrics log', () => {
  it('returns what was appended', async () => {
    const path = join(folder, 'metrics.jsonl');
    const log = await openMetricsLog(path, 0);
    await log.append({ step: 1, loss: 0.5, phase: 1 });
    await log.append({ step: 2, loss: Number.NaN });
    const [first, second] = await readMetrics(path);
    expect(first).toEqual({ step: 1, time: expect.any(Number), loss: 0.5, phase: 1 });
    expect(Math.abs(first.time - Date.now() / 1000)).toBeLessThan(60);
    expect(second.loss).toBeNull();
  });

  it('drops the lines of repeated steps, and a truncated line', async () => {
    const path = join(folder, 'metrics.jsonl');
    const rows = [1, 2, 2, 3, 4].map((step) => ({ step, time: step }));
    writeFileSync(path, `${rows.map((row) => JSON.stringify(row)).join('\n')}\n{"step": 5, "ti`);
    expect(await readMetrics(path)).toEqual(rows);
    const log = await openMetricsLog(path, 2);
    await log.append({ step: 3 });
    const steps = (await readMetrics(path)).map(({ step }) => step);
    expect(steps).toEqual([1, 2, 2, 3]);
    await openMetricsLog(path, 0);
    expect(await readMetrics(path)).toEqual([]);
    await openMetricsLog(join(folder, 'deleted.jsonl'), 9);
    expect(await readMetrics(join(folder, 'deleted.jsonl'))).toEqual([]);
  });

  it('names a damaged line, and a missing file', async () => {
    const path = join(folder, 'metrics.jsonl');
    await expect(readMetrics(path)).rejects.toThrow(DataError);
    writeFileSync(path, '{"step": 1, "time": 1}\n{"step"\n{"step": 3, "time": 3}\n');
    await expect(readMetrics(path)).rejects.toThrow(`${path}:2: damaged line`);
    await expect(openMetricsLog(path, 3)).rejects.toThrow(DataError);
    // Steps after the checkpoint are repeated, whether their lines are damaged or not.
    await openMetricsLog(path, 1);
    expect(await readMetrics(path)).toEqual([{ step: 1, time: 1 }]);
    await expect(openMetricsLog(join(path, 'x'), 0)).rejects.toThrow(OutputError);
  });
});
