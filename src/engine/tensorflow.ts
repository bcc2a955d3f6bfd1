import { createRequire } from 'node:module';
import { EngineError } from '../errors.js';

const PACKAGES = ['@tensorflow/tfjs-node-gpu', '@tensorflow/tfjs-node'];

/**
 * Loads TensorFlow's native backend, the GPU build first; it registers itself as `tensorflow`.
 * Returns its name and version. Throws EngineError if neither package is installed and loads.
 */
export async function startTensorFlow(): Promise<string> {
  const require = createRequire(import.meta.url);
  const failures: string[] = [];
  for (const name of PACKAGES) {
    try {
      const library = require(name) as { version: Record<string, string> };
      return `${name} ${library.version['tfjs-node']}`;
    } catch (error) {
      failures.push(`${name}: ${(error as Error).message.split('\n')[0]}`);
    }
  }
  throw new EngineError(
    `--engine tensorflow needs ${PACKAGES.join(' or ')}: run "npm install ${PACKAGES[0]}", or choose --engine wasm`,
    { cause: new Error(failures.join('; ')) },
  );
}
