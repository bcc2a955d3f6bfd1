import { vi } from 'vitest';

// The same on a CUDA device that is none (../aten/pretend-cuda.ts): each operator by the schemas of all versions of PyTorch.

vi.stubEnv('ALITOK_TEST_DEVICE', 'pretended-cuda');
await import('./suite.test.js');
