import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    testTimeout: 120_000,
    hookTimeout: 60_000,
    // Each file in a process of its own: engines keep global state. Two at a time: engines use all processors.
    pool: 'forks',
    maxWorkers: 2,
  },
});
