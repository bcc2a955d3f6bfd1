import type { TokenCache } from '../data/codes.js';
import { Random } from '../random.js';

/** Codes (B, T) and classes (B) of B images, and which images and crops of the cache they are. */
export interface TokenBatch {
  codes: Int32Array;
  classes: Int32Array;
  images: number[];
  crops: number[];
}

/** Endless shuffled reading of a token cache: what stands at a position depends on seed and position alone. */
export class TokenBatches {
  private epoch = -1;
  private order: Uint32Array = new Uint32Array();

  constructor(
    private readonly cache: TokenCache,
    private readonly seed: number,
  ) {}

  /** `count` images from the endless sequence's `position` on, each with one of its crops at random. */
  async read(position: number, count: number): Promise<TokenBatch> {
    const { images, crops, tokens, classes: classOf } = this.cache;
    const codes = new Int32Array(count * tokens);
    const classes = new Int32Array(count);
    const read: Pick<TokenBatch, 'images' | 'crops'> = { images: [], crops: [] };
    for (let i = 0; i < count; i++) {
      const at = position + i;
      const image = this.shuffled(Math.floor(at / images), at % images);
      const crop = Random.of(this.seed, `crop ${at}`).integer(crops);
      await this.cache.read(image, crop, codes, i * tokens);
      classes[i] = classOf[image];
      read.images.push(image);
      read.crops.push(crop);
    }
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
