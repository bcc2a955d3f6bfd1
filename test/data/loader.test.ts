import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openDataset } from '../../src/data/dataset.js';
import { encodePng } from '../../src/data/images/png.js';
import { type Batch, type SmallImages, TrainingLoader } from '../../src/data/loader.js';
import { prefetch } from '../../src/data/prefetch.js';
import { type SequenceStart, sequentialBatches } from '../../src/data/sequential.js';
import { ALONE, type Group } from '../../src/engine/distributed/group.js';
import { DataError } from '../../src/errors.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'loader-'));
});
afterAll(() => rm(folder, { recursive: true }));

const SIZE = 8;

/** Images of 11 × 8; all pixels have the image's number in red and their column in green. */
async function makeImages(name: string, count: number, broken: readonly number[] = []) {
  for (const kind of ['even', 'odd']) await mkdir(join(folder, name, kind), { recursive: true });
  for (let i = 0; i < count; i++) {
    const data = Uint8Array.from({ length: 11 * 8 * 3 }, (_, j) => [i, Math.floor(j / 3) % 11, 0][j % 3]);
    const png = broken.includes(i)
      ? Buffer.from('no image')
      : await encodePng({ width: 11, height: 8, data });
    const file = `${String(i).padStart(3, '0')}.png`;
    await writeFile(join(folder, name, i % 2 === 0 ? 'even' : 'odd', file), png);
  }
  return openDataset({ folder: join(folder, name) });
}

/** The number of each image of a batch, from its pixels. */
const numbers = ({ images }: Batch) => [...images].filter((_, i) => i % (SIZE * SIZE * 3) === 0);

async function take(loader: TrainingLoader, count: number): Promise<Batch[]> {
  const batches: Batch[] = [];
  for (let i = 0; i < count; i++) batches.push(await loader.next());
  return batches;
}

describe('TrainingLoader', async () => {
  let dataset: Awaited<ReturnType<typeof makeImages>>;
  beforeAll(async () => {
    dataset = await makeImages('train', 10);
  });
  const options = { imageSize: SIZE, batchSize: 4, seed: 3 };

  it('shows every image once per epoch, in a new order each epoch, with batches across epochs', async () => {
    const loader = new TrainingLoader({ dataset, ...options });
    const batches = await take(loader, 5);
    expect(batches.every(({ images }) => images.length === 4 * SIZE * SIZE * 3)).toBe(true);
    const seen = batches.flatMap(numbers);
    const sorted = (part: number[]) => part.toSorted((a, b) => a - b);
    expect(sorted(seen.slice(0, 10))).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(sorted(seen.slice(10))).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(seen.slice(0, 10)).not.toEqual(seen.slice(10));
    for (const batch of batches) {
      // entries: even/000, even/002, …, then odd/001, …
      expect([...batch.indices].map((i) => Number(dataset.path(i).slice(-7, -4)))).toEqual(numbers(batch));
      expect([...batch.classes]).toEqual(numbers(batch).map((n) => n % 2));
    }
    await loader.close();
  });

  it('depends only on the seed, and continues exactly from a position', async () => {
    const whole = new TrainingLoader({ dataset, ...options, concurrency: 1 });
    const expected = await take(whole, 8);
    expect(whole.position).toEqual({ epoch: 3, offset: 2 });
    await whole.close();

    const first = new TrainingLoader({ dataset, ...options });
    const before = await take(first, 3);
    const { position } = first;
    await first.close();
    const second = new TrainingLoader({ dataset, ...options, position });
    const after = await take(second, 5);
    await second.close();
    expect([...before, ...after]).toEqual(expected);

    const other = new TrainingLoader({ dataset, ...options, seed: 4 });
    expect(await take(other, 8)).not.toEqual(expected);
    await other.close();
  });

  it('draws new crops each epoch from images that are read once', async () => {
    const short = await makeImages('once', 4);
    const loader = new TrainingLoader({ dataset: short, ...options });
    const epochs = await take(loader, 3);
    // From here on, images that the first epochs did not keep in memory cannot be read.
    await rm(join(folder, 'once'), { recursive: true });
    epochs.push(...(await take(loader, 20)));
    await loader.close();
    const crops = epochs.map(({ images, indices }) => {
      const at = indices.indexOf(0) * SIZE * SIZE * 3;
      return `${images[at + 1]}-${images[at + 4]}`; // first two columns: offset and direction
    });
    // 4 offsets, 2 directions
    expect(new Set(crops).size).toBe(8);
  });

  it('replaces an unreadable file by the next readable one of the epoch', async () => {
    const [good, broken] = [await makeImages('good', 120), await makeImages('broken', 120, [7])];
    const unreadable: string[] = [];
    const onUnreadable = (path: string) => unreadable.push(path);
    const [a, b] = [
      new TrainingLoader({ dataset: good, ...options }),
      new TrainingLoader({ dataset: broken, ...options, onUnreadable }),
    ];
    const [expected, seen] = [(await take(a, 30)).flatMap(numbers), (await take(b, 30)).flatMap(numbers)];
    const at = expected.indexOf(7);
    expect(seen).toEqual(expected.with(at, expected[(at + 1) % 120]));
    await take(b, 30);
    expect(unreadable).toEqual([join(folder, 'broken/odd/007.png')]);
    await a.close();
    await b.close();
  });

  it('fails when more than 1 % cannot be read, and names them', async () => {
    const broken = await makeImages('worse', 120, [7, 8]);
    const loader = new TrainingLoader({ dataset: broken, ...options });
    const error = await take(loader, 30).catch((e) => e);
    expect(error).toBeInstanceOf(DataError);
    expect(error.message).toMatch(/^2 of 120 images in .*worse cannot be read.*(007|008).png.*(007|008).png/);
    await loader.close();
  });

  it('remembers unreadable files across a resume, so that the limit does not start again', async () => {
    const twice = await makeImages('twice', 120, [7, 8]);
    const bad = [...twice.classes.keys()].filter((i) => /00[78]\.png$/.test(twice.path(i)));
    const told: string[] = [];
    const onUnreadable = (path: string) => told.push(path);
    const position = { epoch: 0, offset: 0, unreadable: [bad[0]] };
    const loader = new TrainingLoader({ dataset: twice, ...options, position, onUnreadable });
    expect(loader.position).toEqual(position);
    await expect(take(loader, 30)).rejects.toThrow(/^2 of 120 images/);
    expect(told).toEqual([join(folder, 'twice', twice.path(bad[1]))]);
    await loader.close();
  });

  it('adds up the unreadable files of all processes of a group', async () => {
    const shared = await makeImages('together', 220, [7, 8]);
    const bad = [...shared.classes.keys()].filter((i) => /00[78]\.png$/.test(shared.path(i)));
    const loader = new TrainingLoader({ dataset: shared, ...options });
    const others = (...found: number[]): Group => ({
      ...ALONE,
      size: 2,
      allGatherBytes: async (own) => [own, new Uint8Array(Uint32Array.of(4 * found.length, ...found).buffer)],
    });
    await take(loader, 1);
    await loader.gatherUnreadable(others(...bad));
    expect(loader.position).toEqual({ epoch: 0, offset: 4, unreadable: bad });
    await take(loader, 60);
    await expect(loader.gatherUnreadable(others(0))).rejects.toThrow(/^3 of 220 images/);
    await loader.close();
  });

  it('gives each process its part of every batch, wherever it starts', async () => {
    const whole = new TrainingLoader({ dataset, ...options });
    const expected = (await take(whole, 6)).map(numbers);
    await whole.close();
    for (const size of [2, 4]) {
      const position = { epoch: 0, offset: 4 };
      const loaders = Array.from(
        { length: size },
        (_, rank) => new TrainingLoader({ dataset, ...options, position, share: { rank, size } }),
      );
      const parts = await Promise.all(loaders.map((loader) => take(loader, 5)));
      const together = Array.from({ length: 5 }, (_, i) => parts.flatMap((batches) => numbers(batches[i])));
      expect(together).toEqual(expected.slice(1));
      for (const loader of loaders) expect(loader.position).toEqual({ epoch: 2, offset: 4 });
      await Promise.all(loaders.map((loader) => loader.close()));
    }
  });
});

describe('sequentialBatches', () => {
  async function all(batches: AsyncIterable<Batch>): Promise<Batch[]> {
    const list: Batch[] = [];
    for await (const batch of batches) list.push(batch);
    return list;
  }
  const options = { imageSize: SIZE, batchSize: 4 };

  it('reads everything once, in order, with a partial last batch', async () => {
    const dataset = await makeImages('once-through', 10);
    const batches = await all(sequentialBatches({ dataset, ...options, crops: 'center' }));
    expect(batches.map(numbers)).toEqual([
      [0, 2, 4, 6],
      [8, 1, 3, 5],
      [7, 9],
    ]);
    expect(batches.flatMap(({ classes }) => [...classes])).toEqual([0, 0, 0, 0, 0, 1, 1, 1, 1, 1]);
  });

  it('returns all crops of a file in a row', async () => {
    const dataset = await makeImages('crops', 3);
    const [flip] = await all(sequentialBatches({ dataset, ...options, crops: 'flip' }));
    expect(numbers(flip)).toEqual([0, 0, 2, 2, 1, 1]);
    const columns = [...flip.images].filter((_, i) => i % (SIZE * SIZE * 3) === 1);
    expect(columns).toEqual([1, 8, 1, 8, 1, 8]); // the centre starts at column 1 of 11
    const [ten] = await all(sequentialBatches({ dataset, ...options, crops: 'ten-crop' }));
    expect(ten.images.length).toBe(30 * SIZE * SIZE * 3);
    expect([...ten.indices]).toEqual([0, 1, 2]);
  });

  it('drops an unreadable file and fills the batch', async () => {
    const dataset = await makeImages('drop', 101, [4]);
    const unreadable: string[] = [];
    const onUnreadable = (path: string) => unreadable.push(path);
    const batches = await all(sequentialBatches({ dataset, ...options, crops: 'center', onUnreadable }));
    expect(numbers(batches[0])).toEqual([0, 2, 6, 8]);
    expect(batches.map(({ indices }) => indices.length)).toEqual(Array(25).fill(4));
    expect(unreadable).toEqual([join(folder, 'drop/even/004.png')]);
  });

  it('continues from an entry, and remembers unreadable files before it', async () => {
    const dataset = await makeImages('start', 101, [4]);
    const sequence = (start?: SequenceStart) =>
      all(sequentialBatches({ dataset, ...options, crops: 'center', start }));
    const whole = await sequence();
    const rest = await sequence({ entry: whole[1].indices.at(-1)! + 1, unreadable: [2] });
    expect(rest.map(({ indices }) => [...indices])).toEqual(
      whole.slice(2).map(({ indices }) => [...indices]),
    );
    expect(rest[0].images).toEqual(whole[2].images);
    // With another unreadable file before it, more than 1 % are unreadable.
    await expect(sequence({ entry: 0, unreadable: [50] })).rejects.toThrow(/^2 of 101 images/);
  });

  it('fails on a small folder with one unreadable file', async () => {
    const dataset = await makeImages('small', 5, [2]);
    const batches = all(sequentialBatches({ dataset, ...options, crops: 'center' }));
    await expect(batches).rejects.toThrow(/^1 of 5 images .*even\/002.png/);
  });

  it('of several processes take turns, with the same number of rounds for each', async () => {
    const dataset = await makeImages('shared', 110, [40]);
    const options = { dataset, imageSize: SIZE, batchSize: 8, crops: 'flip' as const };
    const all = async (share?: { rank: number; size: number }) => {
      const batches: Batch[] = [];
      for await (const batch of sequentialBatches({ ...options, share })) batches.push(batch);
      return batches;
    };
    const shares = await Promise.all([0, 1, 2].map((rank) => all({ rank, size: 3 })));
    expect(shares.map((batches) => batches.length)).toEqual([5, 5, 5]);
    expect(shares.map((batches) => batches.at(-1)!.classes.length)).toEqual([8, 6, 0]);
    const inTurn = shares[0].flatMap((_, round) => shares.flatMap((batches) => [...batches[round].indices]));
    expect(inTurn).toEqual((await all()).flatMap((batch) => [...batch.indices]));
  });
});

describe('images smaller than wanted', () => {
  const options = { imageSize: SIZE, batchSize: 4, seed: 3 };
  // 20 images of 11 × 8; three of them are replaced.
  const mixed = async (name: string) => {
    await makeImages(name, 20);
    for (const [file, width, height] of [
      ['even/004.png', 2, 2],
      ['odd/007.png', 1, 300],
      ['even/018.png', 300, 7],
    ] as const)
      await writeFile(
        join(folder, name, file),
        await encodePng({ width, height, data: new Uint8Array(width * height * 3) }),
      );
    return openDataset({ folder: join(folder, name) });
  };
  const listener = () => {
    const found: SmallImages[] = [];
    return { found, onSmall: (small: SmallImages) => found.push(small) };
  };
  const three = {
    root: expect.stringMatching(/small-\d$/),
    count: 3,
    imageSize: SIZE,
    example: 'even/004.png, 2 × 2',
  };

  it('are reported once, when training has seen all images', async () => {
    const { found, onSmall } = listener();
    const loader = new TrainingLoader({ ...options, dataset: await mixed('small-1'), onSmall });
    await take(loader, 20 / options.batchSize - 1);
    expect(found).toEqual([]);
    await take(loader, 30);
    await loader.close();
    expect(found).toEqual([three]);
  });

  it('are reported when training ends before that, counting those that were read', async () => {
    const { found, onSmall } = listener();
    const dataset = await mixed('small-2');
    const loader = new TrainingLoader({ ...options, dataset, batchSize: 19, onSmall });
    await loader.next();
    expect(found).toEqual([]);
    await loader.close();
    await loader.close();
    expect(found).toEqual([
      {
        ...three,
        example: expect.any(String),
        count: expect.toSatisfy((count: number) => count === 2 || count === 3),
      },
    ]);
  });

  it('are reported once per pass, when it ends', async () => {
    const { found, onSmall } = listener();
    const dataset = await mixed('small-3');
    const pass = { dataset, imageSize: SIZE, batchSize: 3, crops: 'center' as const, onSmall };
    const batches = sequentialBatches(pass);
    await batches.next();
    expect(found).toEqual([]);
    for await (const _ of batches);
    expect(found).toEqual([three]);
    const shares = [0, 1].map(async (rank) => {
      for await (const _ of sequentialBatches({ ...pass, share: { rank, size: 2 } }));
    });
    await Promise.all(shares);
    // Each of two processes reports its own: 4 and 18 are in the first and the last part.
    expect(found.slice(1).reduce((sum, { count }) => sum + count, 0)).toBe(3);
  });

  it('do not include images of exactly that size', async () => {
    const { found, onSmall } = listener();
    const dataset = await makeImages('exact', 6);
    for await (const _ of sequentialBatches({
      dataset,
      imageSize: 8,
      batchSize: 3,
      crops: 'center',
      onSmall,
    }));
    expect(found).toEqual([]);
  });
});

describe('prefetch', () => {
  it('keeps order and both limits, and starts nothing after the loop ends', async () => {
    let running = 0;
    let most = 0;
    const started: number[] = [];
    const load = async (item: number) => {
      started.push(item);
      most = Math.max(most, ++running);
      // Later items finish sooner.
      await new Promise((resolve) => setTimeout(resolve, 8 - (item % 8)));
      running--;
      return item;
    };
    const seen: number[] = [];
    for await (const item of prefetch(Array(100).keys(), load, { concurrency: 3, ahead: 6 })) {
      seen.push(item);
      expect(started.length).toBeLessThanOrEqual(seen.length + 6);
      if (seen.length === 20) break;
    }
    expect(seen).toEqual([...Array(20).keys()]);
    expect(most).toBe(3);
    expect(running).toBe(0);
    const { length } = started;
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(started.length).toBe(length);
  });
});
