import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { OPERATOR_CHECKS } from '../../src/doctor/operators.js';
import { canRun, device } from '../support/engines.js';

/** Preloaded text that makes the import of sharp fail: machines with a GPU may lack it, and these scripts need no images. */
const REFUSE_SHARP = `import { register } from 'node:module';
register('data:text/javascript,' + encodeURIComponent(\`
  export function resolve(specifier, context, next) {
    if (specifier === 'sharp') throw new Error('sharp is imported by ' + context.parentURL);
    return next(specifier, context);
  }\`));`;
const WITHOUT_SHARP = `--import data:text/javascript,${encodeURIComponent(REFUSE_SHARP)}`;

/** Runs a script of test/bench on the tested device. */
function run(script: string, args: string[], env: NodeJS.ProcessEnv = {}) {
  const path = fileURLToPath(new URL(`../bench/${script}`, import.meta.url));
  return new Promise<{ code: number; stdout: string }>((resolve) => {
    const options = { env: { ...process.env, ...env } };
    execFile(process.execPath, [path, '--device', device, ...args], options, (error, stdout, stderr) =>
      resolve({ code: error ? Number(error.code) : 0, stdout: stdout + stderr }),
    );
  });
}

describe.skipIf(!canRun('libtorch'))('the smoke tests for a new machine', () => {
  it('print a line for each operation, for a group of one process, and for the cost of calls', async () => {
    const { code, stdout } = await run('smoke.js', ['--precision', 'float32'], {
      NODE_OPTIONS: WITHOUT_SHARP,
    });
    const count = 1 + OPERATOR_CHECKS.length + 2 + 6;
    expect(stdout).toContain(`${count} of ${count} are right, 0 wrong, 0 failed`);
    expect(stdout.match(/^ok {3}/gm)).toHaveLength(count);
    expect(stdout).toMatch(/^ok {3}attention, causal +\d\.\de[+-]\d+ of 1e-4 +\d+ ms {2}/m);
    expect(stdout).toMatch(/^ok {3}and again: \d+ ms to meet/m);
    expect(stdout).toMatch(/^ok {3}a call that makes a view +[\d.]+ of the host +[\d.]+ to its end$/m);
    expect(code).toBe(0);
  });

  it('continue in another process if one dies', async () => {
    const killing = `process.send && process.on('message', ({ name }) => {
      if (name === 'gelu') process.kill(process.pid, 'SIGKILL');
    })`;
    const preload = `--import data:text/javascript,${encodeURIComponent(killing)}`;
    const args = ['--precision', 'float32', '--only', 'el'];
    const { code, stdout } = await run('smoke.js', args, { NODE_OPTIONS: preload });
    expect(stdout).toMatch(/^FAIL gelu: the process died \(SIGKILL\)$/m);
    expect(stdout).toMatch(/^ok {3}drawCodes, the most likely /m);
    expect(stdout).toMatch(/, 0 wrong, 1 failed$/m);
    expect(code).toBe(1);
  });

  it('train a few steps, compare with the CPU, and resume halfway', async () => {
    const { code, stdout } = await run('curves.js', ['--steps', '6'], { NODE_OPTIONS: WITHOUT_SHARP });
    for (const stage of ['stage 1', 'stage 2', 'generator']) {
      expect(stdout).toMatch(
        new RegExp(`^${stage} +[\\d.]+ to [\\d.]+, on the CPU [\\d.]+ to [\\d.]+;`, 'm'),
      );
      const same = device === 'cpu' ? 'the same bits' : '(the same bits|at most .* apart)';
      expect(stdout).toMatch(new RegExp(`^${stage}, resumed at half +${same}$`, 'm'));
    }
    expect(stdout).toMatch(/^curves agree$/m);
    expect(code).toBe(0);
  });
});
