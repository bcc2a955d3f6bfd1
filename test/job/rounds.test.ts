import { describe, expect, it } from 'vitest';
import { ALONE, type Group } from '../../src/engine/distributed/group.js';
import { Interrupted } from '../../src/errors.js';
import { type RoundsOptions, runRounds } from '../../src/job/rounds.js';

/** A group of processes, simulated in one process: an exchange waits for all of them. */
function processes(size: number): Group[] {
  let waiting: { bytes: Uint8Array; done: (all: Uint8Array[]) => void }[] = [];
  return Array.from({ length: size }, (_, rank) => {
    const allGatherBytes = (bytes: Uint8Array) =>
      new Promise<Uint8Array[]>((done) => {
        waiting[rank] = { bytes: bytes.slice(), done };
        if (Object.keys(waiting).length < size) return;
        const all = waiting;
        waiting = [];
        for (const one of all) one.done(all.map(({ bytes }) => bytes));
      });
    const any = async (flag: boolean) =>
      (await allGatherBytes(Uint8Array.of(Number(flag)))).some(([one]) => one === 1);
    return { ...ALONE, rank, size, allGatherBytes, any };
  });
}

/** Ten numbers in batches of two, distributed over the processes; the last batches may be empty. */
function* batches({ rank, size }: Group): Generator<number[]> {
  for (let start = 0; start < 10; start += 2 * size) {
    const first = start + 2 * rank;
    yield [first, first + 1].filter((n) => n < 10);
  }
}

interface Run {
  taken: number[][];
  shown: number[];
  stopped: number;
  result: Promise<number>;
}

function run(
  group: Group,
  more: Partial<RoundsOptions<number[], { squares: Int32Array }>> = {},
  start?: number,
): Run {
  const seen: Omit<Run, 'result'> = { taken: [], shown: [], stopped: 0 };
  const reporter = {
    info() {},
    warn() {},
    progress: () => ({ update: (done: number) => seen.shown.push(done), stop: () => seen.stopped++ }),
  };
  const options: RoundsOptions<number[], { squares: Int32Array }> = {
    progress: { label: 'squares', total: 10, unit: 'numbers', start },
    compute: (batch) => ({ squares: Int32Array.from(batch, (n) => n * n) }),
    count: ({ squares }) => squares.length,
    take: ({ squares }) => {
      seen.taken.push([...squares]);
    },
    ...more,
  };
  return Object.assign(seen, { result: runRounds(batches(group), options, { reporter, group }) });
}

describe('runRounds', () => {
  it('gives rank 0 the batches in the order of one process, for any number of processes', async () => {
    const alone = run(ALONE, {}, 100);
    expect(await alone.result).toBe(110);
    expect(alone.taken).toEqual([
      [0, 1],
      [4, 9],
      [16, 25],
      [36, 49],
      [64, 81],
    ]);
    expect(alone.shown).toEqual([102, 104, 106, 108, 110]);
    const three = processes(3).map((group) => run(group, {}, 100));
    expect(await Promise.all(three.map(({ result }) => result))).toEqual([110, 110, 110]);
    expect(three.map(({ taken }) => taken)).toEqual([alone.taken, [], []]);
    expect(three.map(({ shown }) => shown)).toEqual(Array(3).fill([106, 110]));
    expect(three.map(({ stopped }) => stopped)).toEqual([1, 1, 1]);
  });

  it('handles signals between rounds, and ends on all processes after the same round', async () => {
    const controllers = [0, 1].map(() => new AbortController());
    const two = processes(2).map((group, rank) => {
      const { signal } = controllers[rank];
      return run(group, {
        compute(batch) {
          // Like a signal, which arrives in a turn of the event loop.
          if (rank === 1 && batch[0] === 2) setImmediate(() => controllers[1].abort());
          return { squares: Int32Array.from(batch) };
        },
        stop: { signal, error: (done) => new Interrupted(`after ${done}`) },
      });
    });
    const ends = await Promise.allSettled(two.map(({ result }) => result));
    for (const end of ends) {
      expect(end).toMatchObject({ status: 'rejected', reason: expect.any(Interrupted) });
      expect((end as PromiseRejectedResult).reason.message).toBe('after 4');
    }
    expect(two.map(({ stopped }) => stopped)).toEqual([1, 1]);
    expect(two[0].taken).toEqual([
      [0, 1],
      [2, 3],
    ]);
  });

  it('waits for the callback, and closes the bar if that fails', async () => {
    const order: string[] = [];
    const failing = run(ALONE, {
      compute: (batch) => {
        order.push(`compute ${batch[0]}`);
        return { squares: Int32Array.from(batch) };
      },
      async take({ squares }) {
        await new Promise((resolve) => setTimeout(resolve, 5));
        order.push(`take ${squares[0]}`);
        if (squares[0] === 2) throw new Error('disk full');
      },
    });
    await expect(failing.result).rejects.toThrow('disk full');
    expect(order).toEqual(['compute 0', 'take 0', 'compute 2', 'take 2']);
    expect(failing.stopped).toBe(1);
  });
});
