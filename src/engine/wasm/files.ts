import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { EngineError } from '../../errors.js';

/** A file that the build puts beside this one, also when the sources run. Throws EngineError if it is not built. */
export function builtFile(name: string): string {
  const places = [`./${name}`, `../../../dist/engine/wasm/${name}`];
  const path = places.map((place) => fileURLToPath(new URL(place, import.meta.url))).find(existsSync);
  if (!path) throw new EngineError(`the wasm engine is not built (${name} is missing): run "npm run build"`);
  return path;
}

/** The folder of tfjs's own WebAssembly builds. */
export function tfjsWasmFolder(): string {
  const require = createRequire(import.meta.url);
  return join(dirname(require.resolve('@tensorflow/tfjs-backend-wasm/package.json')), 'wasm-out');
}
