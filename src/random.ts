import { uniformInt } from 'pure-rand/distribution/uniformInt';
import { xoroshiro128plus, xoroshiro128plusFromState } from 'pure-rand/generator/xoroshiro128plus';
import type { RandomGenerator } from 'pure-rand/types/RandomGenerator';

/** FNV-1a, a 32-bit hash of a string, which gives each purpose (`'crops'`, `'dropout'`) its own stream. */
function hash(text: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  return h >>> 0;
}

/**
 * The one source of randomness: a xoroshiro128+ stream that can be named, saved and restored.
 * The same seed and purpose give the same numbers on every machine.
 */
export class Random {
  private constructor(
    private generator: RandomGenerator,
    private readonly seed: number,
  ) {}

  /** The stream of `seed` for one purpose; streams of different purposes are independent. */
  static of(seed: number, purpose = ''): Random {
    const mixed = (Math.imul(seed | 0, 0x9e3779b1) ^ hash(purpose)) | 0;
    return new Random(xoroshiro128plus(mixed), mixed);
  }

  /** A stream that depends only on this one's seed and `purpose`, not on how many numbers were drawn from this one. */
  fork(purpose: string | number): Random {
    return Random.of(this.seed, String(purpose));
  }

  /** The exact position in the stream, for a checkpoint. */
  get state(): number[] {
    return [this.seed, ...this.generator.getState()];
  }

  static fromState(state: readonly number[]): Random {
    return new Random(xoroshiro128plusFromState(state.slice(1)), state[0]);
  }

  /** An unsigned 32-bit integer. */
  bits(): number {
    return this.generator.next() >>> 0;
  }

  /** A float in [0, 1) with 53 random bits. */
  uniform(): number {
    const high = this.bits() >>> 5;
    const low = this.bits() >>> 6;
    return (high * 0x4000000 + low) / 0x20000000000000;
  }

  /** An integer in [0, n), without bias. */
  integer(n: number): number {
    return uniformInt(this.generator, 0, n - 1);
  }

  /** A standard normal number (Box–Muller, one of the pair). */
  normal(): number {
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()));
    return radius * Math.cos(2 * Math.PI * this.uniform());
  }

  /** 0..n−1 in random order (Fisher–Yates). */
  permutation(n: number): Uint32Array {
    const order = Uint32Array.from({ length: n }, (_, i) => i);
    for (let i = n - 1; i > 0; i--) {
      const j = this.integer(i + 1);
      [order[i], order[j]] = [order[j], order[i]];
    }
    return order;
  }
}
