import { expect, it, vi } from 'vitest';
import { describeEngines } from '../support/engines.js';
import { codesOf, drawingGenerator } from '../support/sampling.js';

const SIZES = { width: 16, layers: 2, heads: 2, classes: 3, codebook_size: 24, prefix_tokens: 3, grid: 2 };
const NONE = SIZES.classes;
const UNGUIDED = { guidance: { scale: 0, power: 1 } };

describeEngines('images without a class', () => {
  it('are those of guidance 0, at the cost of guidance 0', async () => {
    const generator = drawingGenerator(SIZES);
    const createCache = vi.spyOn(generator, 'createCache');
    const classes = [NONE, NONE, NONE];
    const guided = await codesOf(generator, classes);
    expect(guided).toEqual(await codesOf(generator, classes, UNGUIDED));
    expect(guided[0]).not.toEqual(guided[1]);
    expect(createCache.mock.calls).toEqual([[3], [3]]);
    generator.dispose();
  });

  it('do not depend on whether other images of the batch have a class', async () => {
    const generator = drawingGenerator(SIZES);
    const createCache = vi.spyOn(generator, 'createCache');
    const mixed = await codesOf(generator, [NONE, 1, NONE, 2]);
    expect(createCache.mock.calls).toEqual([[8]]);
    const free = await codesOf(generator, [NONE, NONE, NONE, NONE]);
    const classed = await codesOf(generator, [0, 1, 0, 2]);
    expect([mixed[0], mixed[2]]).toEqual([free[0], free[2]]);
    expect([mixed[1], mixed[3]]).toEqual([classed[1], classed[3]]);
    expect(mixed[1]).not.toEqual(free[1]);
    generator.dispose();
  });
});
