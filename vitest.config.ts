import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';
import Sequencer from './test/sequencer.js';

const JASMINE_UTIL = fileURLToPath(new URL('test/tfjs/jasmine-util.ts', import.meta.url));

export default defineConfig({
  plugins: [
    {
      name: 'tfjs-core-tests',
      enforce: 'pre',
      resolveId: (id) => (/^\.{1,2}\/.*jasmine_util$/.test(id) ? JASMINE_UTIL : undefined),
    },
  ],
  test: {
    include: ['test/**/*.test.ts'],
    testTimeout: 120_000,
    hookTimeout: 60_000,
    // Each file in a process of its own: engines keep global state, and each has threads of its own (test/whole-run.ts).
    pool: 'forks',
    maxWorkers: Math.max(2, Math.floor(availableParallelism() / 2)),
    globalSetup: 'test/whole-run.ts',
    sequence: { sequencer: Sequencer },
    // tfjs-core's tests import without file extensions, which Node.js does not resolve.
    server: { deps: { inline: [/tfjs-core\/dist/] } },
  },
});
