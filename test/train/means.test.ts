import { expect, it } from 'vitest';
import type { Metrics } from '../../src/run/metrics.js';
import { Means } from '../../src/train/loop.js';

it('means continue from their saved state to the same bits, infinite ones too', () => {
  const rows: Metrics[] = [
    { loss: 0.1, psnr: 20.3 },
    { loss: 0.2, psnr: Number.POSITIVE_INFINITY },
    { loss: 0.7, discriminator: 1 / 3 },
    { loss: 1e-17, discriminator: 0.1 },
  ];
  const whole = new Means();
  const [first, second] = [new Means(), new Means()];
  for (const row of rows) whole.add(row);
  for (const row of rows.slice(0, 2)) first.add(row);
  second.restore(JSON.parse(JSON.stringify(first.state)));
  for (const row of rows.slice(2)) second.add(row);
  const expected = whole.take();
  expect(second.take()).toEqual(expected);
  expect(expected).toMatchObject({ psnr: Number.POSITIVE_INFINITY, discriminator: (1 / 3 + 0.1) / 2 });
  expect(second.take()).toEqual({});
});
