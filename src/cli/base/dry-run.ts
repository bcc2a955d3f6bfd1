import type { Rehearsal } from '../../train/rehearse.js';
import { rehearse } from '../../train/rehearse.js';
import type { Runner } from '../../train/run-training.js';
import type { Log } from './log.js';

const gib = (bytes: number) =>
  bytes >= 2 ** 30 / 10 ? `${(bytes / 2 ** 30).toFixed(1)} GiB` : `${(bytes / 2 ** 20).toFixed(1)} MiB`;

/** Seconds as `3 d 4 h`, `2 h 5 min`, `4 min` or `12 s`. */
function aboutTime(seconds: number): string {
  const [minutes, hours] = [Math.round(seconds / 60), Math.round(seconds / 3600)];
  if (hours >= 24) return `${Math.floor(hours / 24)} d ${hours % 24} h`;
  if (minutes >= 60) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return seconds >= 90 ? `${minutes} min` : `${Math.max(1, Math.round(seconds))} s`;
}

/** What a run would take, as lines of a table. */
function rehearsalLines(found: Rehearsal): [name: string, value: string][] {
  const { memory, disk, previews, secondsPerStep, steps } = found;
  const each = secondsPerStep.map((seconds) => `${Number(seconds.toPrecision(3))} s`);
  return [
    ['run', found.label],
    ['parameters', found.parameters.toLocaleString('en-US')],
    ['steps', steps.toLocaleString('en-US')],
    [
      'a step takes',
      each.length === 0
        ? 'not tried'
        : each.length === 1
          ? each[0]
          : `${each.join(', ')} in the phases in turn`,
    ],
    [
      'the run takes',
      found.seconds === undefined
        ? 'not known'
        : `about ${aboutTime(found.seconds)}${previews.count > 0 ? `, ${previews.count} previews of ${previews.seconds.toFixed(1)} s included` : ''}`,
    ],
    [
      'memory',
      `${gib(memory.state)} for weights, gradients and optimizer${memory.peak > 0 ? `; at most ${gib(memory.peak)} were taken for these steps` : ''}; there are ${gib(memory.available)}`,
    ],
    [
      'disk',
      `${gib(disk.checkpoint)} a checkpoint, ${gib(disk.needed)} with ${disk.kept} kept and one being written; ${gib(disk.free)} are free`,
    ],
  ];
}

/** Runs `train` with a runner that trains nothing, but says what each run would take, and adds them up. */
export async function dryRun(log: Log, train: (runner: Runner) => Promise<void>): Promise<void> {
  const all: Rehearsal[] = [];
  await train(async (trainer, options, job) => {
    const found = await rehearse(trainer, options, job);
    all.push(found);
    for (const [name, value] of rehearsalLines(found)) console.log(`${name.padEnd(13)}  ${value}`);
    console.log();
  });
  const times = all.flatMap(({ seconds }) => (seconds === undefined ? [] : [seconds]));
  if (all.length > 1 && times.length === all.length)
    console.log(`${'altogether'.padEnd(13)}  about ${aboutTime(times.reduce((a, b) => a + b, 0))}`);
  const needed = all.reduce((sum, { disk }) => sum + disk.needed, 0);
  const free = all[0].disk.free;
  if (needed > free)
    log.warn(
      `the checkpoints need ${gib(needed)}, but ${gib(free)} are free; free some space, or lower logging.keep_checkpoints`,
    );
  console.log('Nothing was written; leave --dry-run out to train.');
}
