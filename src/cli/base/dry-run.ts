import { formatBytes, type NameValue } from '../../text.js';
import type { Rehearsal } from '../../train/rehearse.js';
import { rehearse } from '../../train/rehearse.js';
import type { Runner } from '../../train/run-training.js';
import type { Log } from './log.js';
import { printTable } from './output.js';

/** Seconds as `3 d 4 h`, `2 h 5 min`, `4 min` or `12 s`. */
function aboutTime(seconds: number): string {
  const [minutes, hours] = [Math.round(seconds / 60), Math.round(seconds / 3600)];
  if (hours >= 24) return `${Math.floor(hours / 24)} d ${hours % 24} h`;
  if (minutes >= 60) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return seconds >= 90 ? `${minutes} min` : `${Math.max(1, Math.round(seconds))} s`;
}

/** What a run would take, as rows of a table. */
function rowsOf(found: Rehearsal): NameValue[] {
  const { memory, disk, previews, secondsPerStep, steps } = found;
  const each = secondsPerStep.map((seconds) => `${Number(seconds.toPrecision(3))} s`);
  return [
    ['run', found.label],
    ['parameters', found.parameters.toLocaleString('en-US')],
    ['steps', steps.toLocaleString('en-US')],
    [
      'time per step',
      each.length === 0
        ? 'not measured'
        : each.length === 1
          ? each[0]
          : `${each.join(', ')} in the phases in turn`,
    ],
    [
      'time in all',
      found.seconds === undefined
        ? 'not known'
        : `about ${aboutTime(found.seconds)}${previews.count > 0 ? `, including ${previews.count} previews of ${previews.seconds.toFixed(1)} s` : ''}`,
    ],
    [
      'memory',
      `${formatBytes(memory.state)} for weights, gradients and optimizer${memory.peak > 0 ? `, ${formatBytes(memory.peak)} at the peak of a step` : ''}; ${formatBytes(memory.available)} available`,
    ],
    [
      'disk',
      `${formatBytes(disk.checkpoint)} a checkpoint, ${formatBytes(disk.needed)} with ${disk.kept} kept and one being written; ${formatBytes(disk.free)} free`,
    ],
  ];
}

/** Runs `train` with a runner that does not train, but prints what each run would take, and the time of all. */
export async function dryRun(log: Log, train: (runner: Runner) => Promise<void>): Promise<void> {
  const all: Rehearsal[] = [];
  await train(async (trainer, options, job) => {
    const found = await rehearse(trainer, options, job);
    all.push(found);
    printTable([...rowsOf(found), ['', '']]);
  });
  const times = all.flatMap(({ seconds }) => (seconds === undefined ? [] : [seconds]));
  if (all.length > 1 && times.length === all.length)
    console.log(`all runs together: about ${aboutTime(times.reduce((a, b) => a + b, 0))}`);
  const needed = all.reduce((sum, { disk }) => sum + disk.needed, 0);
  const free = all[0].disk.free;
  if (needed > free)
    log.warn(
      `the checkpoints need ${formatBytes(needed)}, but ${formatBytes(free)} are free; free some space, or lower logging.keep_checkpoints`,
    );
  console.log('Nothing was written; leave --dry-run out to train.');
}
