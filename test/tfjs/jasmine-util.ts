import * as tf from '@tensorflow/tfjs';
import { afterAll, afterEach, beforeAll, beforeEach, type describe as suite } from 'vitest';

// Replaces tfjs-core's own jasmine_util, which needs jasmine, for its tests: one environment, the backend that suite.ts has started.

interface Constraints {
  predicate?: (environment: { name: string; backendName: string; isDataSync: boolean }) => boolean;
  flags?: Record<string, unknown>;
}

const backend = tf.getBackend();
const ENVIRONMENT = { name: backend, backendName: backend, isDataSync: true };

export const ALL_ENVS: Constraints = {};
export const NODE_ENVS: Constraints = {};
export const SYNC_BACKEND_ENVS: Constraints = {};
export const BROWSER_ENVS: Constraints = { predicate: () => false };
export const CHROME_ENVS = BROWSER_ENVS;
export const HAS_WORKER = BROWSER_ENVS;
export const HAS_NODE_WORKER = NODE_ENVS;

/** Runs a suite on the backend, each test in its own scope. */
export function describeWithFlags(
  name: string,
  constraints: Constraints,
  tests: (env: unknown) => void,
): void {
  if (constraints.predicate?.(ENVIRONMENT) === false || constraints.flags) return;
  (globalThis as unknown as { describe: typeof suite }).describe(name, () => {
    beforeAll(async () => {
      tf.env().reset();
      tf.env().set('IS_TEST', true);
      await tf.setBackend(backend);
      // Like tfjs-core's engine between suites: some tests count live tensors.
      Object.assign(tf.engine().state, {
        numTensors: 0,
        numDataBuffers: 0,
        numBytes: 0,
        numStringTensors: 0,
      });
    });
    beforeEach(() => {
      tf.engine().startScope();
    });
    afterEach(() => {
      tf.engine().endScope();
      tf.disposeVariables();
    });
    afterAll(() => {
      tf.env().reset();
    });
    tests(ENVIRONMENT);
  });
}
