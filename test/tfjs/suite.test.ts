import { existsSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as vitest from 'vitest';
import { device, openTested } from '../support/engines.js';
import { EXCLUDED, OUT_OF_RANGE } from './excluded.js';

// Runs tfjs-core's own tests of all its operations, from its package, on the libtorch engine.

const BRIDGE = fileURLToPath(new URL('../../dist/engine/libtorch/bridge.node', import.meta.url));
const built = existsSync(BRIDGE);
const core = join(
  dirname(createRequire(import.meta.url).resolve('@tensorflow/tfjs-core/package.json')),
  'dist',
);

let path: string[] = [];
const seen = new Map<string, number>();
let [total, excluded] = [0, 0];

/** A test's full name; for tests with the same name, the second and later ones have a number appended. */
function fullName(name: string): string {
  const whole = [...path, name].join(' > ');
  const count = (seen.get(whole) ?? 0) + 1;
  seen.set(whole, count);
  return count === 1 ? whole : `${whole} #${count}`;
}

type Done = { (): void; fail: (reason: unknown) => void };
type Body = (done?: Done) => unknown;

/** A test ends when its promise settles, or, if it takes a callback, with a call of `done`. */
async function run(body: Body): Promise<void> {
  if (body.length === 0) return void (await body());
  await new Promise<void>((resolve, reject) => {
    body(Object.assign(() => resolve(), { fail: reject }));
  });
}

const described = (name: string, body: () => void) => {
  const own = [...path, name];
  vitest.describe(name, () => {
    const outer = path;
    path = own;
    body();
    path = outer;
  });
};
vitest.expect.extend({
  nothing: () => ({ pass: true, message: () => '' }), // jasmine's mark for a test without assertions
});
Object.assign(globalThis, vitest, {
  describe: described,
  it: (name: string, body: Body) => {
    const whole = fullName(name);
    if (device !== 'cpu' && OUT_OF_RANGE.has(whole)) return vitest.it.skip(name, () => {});
    total += 1;
    if (EXCLUDED.has(whole)) excluded += 1;
    // An excluded test must fail: remove it from the list if it passes.
    (EXCLUDED.has(whole) ? vitest.it.fails : vitest.it)(name, () => run(body));
  },
  expectAsync: (promise: Promise<unknown>) => ({
    toBeRejected: () => vitest.expect(promise).rejects.toBeDefined(),
    toBeRejectedWithError: (message?: RegExp | string) =>
      vitest.expect(promise).rejects.toThrowError(message),
  }),
  jasmine: { arrayWithExactContents: (values: unknown[]) => vitest.expect.arrayContaining(values) },
  spyOn: (object: never, method: never) =>
    (vitest.vi.spyOn(object, method) as vitest.Mock).mockImplementation(() => {}),
  xit: () => {},
  xdescribe: () => {},
});

if (built) {
  await openTested('libtorch');
  const tests = readdirSync(join(core, 'ops'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('_test.js'))
    .map((name) => join(core, 'ops', name));
  for (const file of [
    ...tests,
    ...['gradients', 'tensor', 'variable'].map((name) => join(core, `${name}_test.js`)),
  ])
    await import(/* @vite-ignore */ file);
}

vitest.describe.skipIf(!built)('tfjs-core op tests on libtorch', () => {
  vitest.it('every exclusion is a test that exists', () => {
    const listed = [...EXCLUDED.keys(), ...OUT_OF_RANGE];
    vitest.expect(listed.filter((name) => !seen.has(name.replace(/ #\d+$/, '')))).toEqual([]);
    console.log(
      `tfjs-core op tests on libtorch: ${total - excluded} of ${total} pass, ${excluded} are excluded`,
    );
  });
});
