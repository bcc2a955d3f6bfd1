import { vi } from 'vitest';

// The same on a pretended CUDA device (../aten/pretend-cuda.ts), with each operator checked by the schemas of all PyTorch versions.

vi.stubEnv('ALITOK_TEST_DEVICE', 'pretended-cuda');
await import('./libtorch.test.js');
