import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { vi } from 'vitest';

const BRIDGE = fileURLToPath(new URL('../../dist/engine/libtorch/bridge.node', import.meta.url));
const built = existsSync(BRIDGE);
vi.stubEnv('ONEDNN_MAX_CPU_ISA', 'AVX2');
vi.stubEnv('DNNL_MAX_CPU_ISA', 'AVX2'); // its name in the versions of PyTorch 1

if (built) {
  vi.stubEnv('ALITOK_TEST_ENGINES', 'libtorch');
  vi.stubEnv('ALITOK_TEST_DEVICE', 'pretended-cuda-with-kernels');
  await import('./ops.test.js');
  await import('./large-shapes.test.js');
  await import('./draw.test.js');
  await import('../golden/generator.test.js');
  await import('../golden/tokenizer.test.js');
  await import('../golden/bf16.test.js');
}
