import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { openNpz } from '../../src/formats/npz.js';
import { openSafetensors } from '../../src/formats/safetensors.js';

const FOLDER = fileURLToPath(new URL('../fixtures/goldens', import.meta.url));

describe('npz files written by NumPy', () => {
  it('reads a stored array', async () => {
    const npz = await openNpz(join(FOLDER, 'samples.npz'));
    expect(npz.names).toEqual(['arr_0']);
    const { dtype, shape, data } = await npz.read('arr_0');
    expect([dtype, shape]).toEqual(['u1', [2, 48, 40, 3]]);
    expect([...(data as Uint8Array).subarray(0, 4)]).toEqual([198, 119, 179, 160]);
    expect((data as Uint8Array).reduce((a, b) => a + b, 0)).toBe(1449428);
    npz.close();
  });

  it('reads deflated arrays, in any order and by rows', async () => {
    const npz = await openNpz(join(FOLDER, 'stats.npz'));
    expect(npz.names).toEqual(['mu', 'sigma', 'mu_s', 'sigma_s', 'arr_0']);
    const sigma = await npz.readFloat64('sigma_s');
    expect(sigma.shape).toEqual([48, 48]);
    expect(sigma.data.reduce((a, b) => a + b, 0)).toBeCloseTo(226.20528161872434, 9);
    const mu = await npz.readFloat64('mu');
    expect(mu.data[0]).toBeCloseTo(0.08183281, 8);
    expect(mu.data.reduce((a, b) => a + b, 0)).toBeCloseTo(-0.9263326563857783, 12);

    const whole = (await npz.read('sigma')).data as Float64Array;
    const parts: number[] = [];
    const lengths: number[] = [];
    for await (const part of npz.rows('sigma', 7, 3, 45)) {
      parts.push(...(part as Float64Array));
      lengths.push(part.length / 48);
    }
    expect(lengths).toEqual([7, 7, 7, 7, 7, 7]);
    expect(parts).toEqual([...whole.subarray(3 * 48, 45 * 48)]);
    npz.close();
  });
});

describe('safetensors file written by the reference library', async () => {
  const file = await openSafetensors(join(FOLDER, 'metrics.safetensors'));
  afterAll(() => file.close());

  it('reads consistent names, shapes, values and metadata', async () => {
    expect(file.tensors.get('a')).toMatchObject({ dtype: 'F32', shape: [400, 48] });
    const a = await file.readFloat32('a');
    expect(a[2]).toBeCloseTo(2.3534284, 6);
    expect(a.reduce((x, y) => x + y, 0)).toBeCloseTo(-370.5330625543113, 6);

    const { shape } = file.tensors.get('psnr.x')!;
    const size = shape[1] * shape[2] * shape[3];
    const [x, y] = [
      await file.readRange('psnr.x', size, size),
      await file.readRange('psnr.y', size, size),
    ] as Float32Array[];
    const mse = x.reduce((sum, value, i) => sum + (value - y[i]) ** 2, 0) / x.length;
    expect(-10 * Math.log10(mse)).toBeCloseTo(Number(file.metadata.psnr_1), 4);
  });
});
