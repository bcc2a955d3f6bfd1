import { createRequire } from 'node:module';
import util from 'node:util';
import { EngineError, option } from '../errors.js';

const PACKAGES = ['@tensorflow/tfjs-node-gpu', '@tensorflow/tfjs-node'];

/** A function of Node.js that the packages (4.22) call for every tensor, and that Node.js 23 removed. */
const NEEDED = 'isNullOrUndefined';

/**
 * Loads TensorFlow's native backend, the GPU build first; it registers itself as `tensorflow`.
 * Returns its name and version. Throws EngineError if this Node.js is too new for it, or neither package is installed and loads.
 */
export function startTensorFlow(nodeUtilities: object = util): string {
  if (!(NEEDED in nodeUtilities))
    throw new EngineError(
      `${option('engine', 'tensorflow')} does not run on Node.js ${process.versions.node}: ${PACKAGES[0]} calls util.${NEEDED}, which Node.js 23 removed; use Node.js 20 or 22, or another ${option('engine')}`,
    );
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
    `${option('engine', 'tensorflow')} needs ${PACKAGES.join(' or ')}: run "npm install ${PACKAGES[0]}", or choose ${option('engine', 'wasm')}`,
    { cause: new Error(failures.join('; ')) },
  );
}
