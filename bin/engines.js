// Builds the optional engines, each if its library and a C++ compiler are found. Another library may be found even if no
// file here has changed, so their builds run each time, and decide themselves.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

/** Runs the builds of the optional engines, one after the other. */
export function buildEngines() {
  for (const name of ['libtorch', 'tensorflow'])
    spawnSync(process.execPath, [`${root}src/engine/${name}/native/build.js`, '--if-found'], {
      cwd: root,
      stdio: 'inherit',
    });
}
