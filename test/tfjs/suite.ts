import { readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import * as vitest from 'vitest';
import { canRun, device, openTested } from '../support/engines.js';
import { EXCLUDED, OUT_OF_RANGE } from './excluded.js';

const core = join(
  dirname(createRequire(import.meta.url).resolve('@tensorflow/tfjs-core/package.json')),
  'dist',
);

type Done = { (): void; fail: (reason: unknown) => void };
type Body = (done?: Done) => unknown;

/** A test ends when its promise settles, or, if it takes a callback, with a call of `done`. */
async function run(body: Body): Promise<void> {
  if (body.length === 0) return void (await body());
  await new Promise<void>((resolve, reject) => {
    body(Object.assign(() => resolve(), { fail: reject }));
  });
}

/**
 * Runs tfjs-core's own tests of all its operations, from its package, on an engine; nothing if it cannot run here. A test file
 * can do this once, since the tests take what they need from global variables.
 */
export async function runSuite(engine: keyof typeof EXCLUDED): Promise<void> {
  const built = canRun(engine);
  const exclusions = EXCLUDED[engine];
  let path: string[] = [];
  const seen = new Map<string, number>();
  let [total, excluded] = [0, 0];

  /** A test's full name; for tests with the same name, the second and later ones have a number appended. */
  const fullName = (name: string): string => {
    const whole = [...path, name].join(' > ');
    const count = (seen.get(whole) ?? 0) + 1;
    seen.set(whole, count);
    return count === 1 ? whole : `${whole} #${count}`;
  };
  const describe = (name: string, body: () => void) => {
    const own = [...path, name];
    vitest.describe(name, () => {
      const outer = path;
      path = own;
      body();
      path = outer;
    });
  };
  const it = (name: string, body: Body) => {
    const whole = fullName(name);
    if (device !== 'cpu' && OUT_OF_RANGE.has(whole)) return vitest.it.skip(name, () => {});
    total += 1;
    if (exclusions.has(whole)) excluded += 1;
    // An excluded test must fail: remove it from the list if it passes.
    (exclusions.has(whole) ? vitest.it.fails : vitest.it)(name, () => run(body));
  };
  vitest.expect.extend({
    nothing: () => ({ pass: true, message: () => '' }), // jasmine's mark for a test without assertions
  });
  Object.assign(globalThis, vitest, {
    describe,
    it,
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
    await openTested(engine);
    const tests = readdirSync(join(core, 'ops'), { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('_test.js'))
      .map((name) => join(core, 'ops', name));
    for (const file of [
      ...tests,
      ...['gradients', 'tensor', 'variable'].map((name) => join(core, `${name}_test.js`)),
    ])
      await import(/* @vite-ignore */ file);
  }

  const title = `tfjs-core op tests on ${engine}`;
  vitest.describe.skipIf(!built)(title, () => {
    vitest.it('every exclusion is a test that exists', () => {
      const listed = [...exclusions.keys(), ...OUT_OF_RANGE];
      vitest.expect(listed.filter((name) => !seen.has(name.replace(/ #\d+$/, '')))).toEqual([]);
      console.log(`${title}: ${total - excluded} of ${total} pass, ${excluded} are excluded`);
    });
  });
}
