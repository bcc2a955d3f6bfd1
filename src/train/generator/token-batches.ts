import { Random } from '../../random.js';
import type { TokenCache } from '../../tokens/codes.js';

/** Codes (B, T) and classes (B) of B images, and their indices in the cache. */
export interface TokenBatch {
  codes: Int32Array;
  classes: Int32Array;
  images: number[];
  crops: number[];
}

/** Number of concurrent reads. */
const CONCURRENCY = 64;

/** `count` images of a batch from `start` on, as views. */
export function slice(
  { codes, classes }: Pick<TokenBatch, 'codes' | 'classes'>,
  start: number,
  count: number,
): Pick<TokenBatch, 'codes' | 'classes'> {
  const tokens = codes.length / classes.length;
  return {
    codes: codes.subarray(start * tokens, (start + count) * tokens),
    classes: classes.subarray(start, start + count),
  };
}

/**
 * Endless shuffled reading of a token cache: the image at a position depends on seed and position alone. The next batch is
 * read ahead.
 */
export class TokenBatches {
  private epoch = -1;
  private order: Uint32Array = new Uint32Array();
  private ahead?: { position: number; count: number; batch: Promise<TokenBatch> };

  constructor(
    private readonly cache: TokenCache,
    private readonly seed: number,
  ) {}

  /**
   * `count` images from `position` in the endless sequence on, each with one of its crops at random. Then reads ahead as
   * many from `next` on.
   */
  async read(position: number, count: number, next = position + count): Promise<TokenBatch> {
    const { ahead } = this;
    const expected = ahead?.position === position && ahead.count === count;
    const batch = await (expected ? ahead.batch : this.load(position, count));
    this.ahead = { position: next, count, batch: this.load(next, count) };
    this.ahead.batch.catch(() => {}); // reported when it is awaited
    return batch;
  }

  private async load(position: number, count: number): Promise<TokenBatch> {
    const { images, crops, tokens, classes: classOf } = this.cache;
    const codes = new Int32Array(count * tokens);
    const classes = new Int32Array(count);
    const read: Pick<TokenBatch, 'images' | 'crops'> = { images: [], crops: [] };
    const rows = Array.from({ length: count }, (_, i) => {
      const at = position + i;
      const image = this.shuffled(Math.floor(at / images), at % images);
      classes[i] = classOf[image];
      const crop = Random.of(this.seed, `crop ${at}`).integer(crops);
      read.images.push(image);
      read.crops.push(crop);
      return { image, crop, offset: i * tokens };
    });
    // In file order, which disks prefer, and many at once.
    const waiting = rows.sort((a, b) => a.image - b.image || a.crop - b.crop).values();
    const readers = Array.from({ length: CONCURRENCY }, async () => {
      for (const { image, crop, offset } of waiting) await this.cache.read(image, crop, codes, offset);
    });
    await Promise.all(readers);
    return { codes, classes, ...read };
  }

  private shuffled(epoch: number, offset: number): number {
    if (epoch !== this.epoch) {
      this.epoch = epoch;
      this.order = Random.of(this.seed, `token order ${epoch}`).permutation(this.cache.images);
    }
    return this.order[offset];
  }
}
