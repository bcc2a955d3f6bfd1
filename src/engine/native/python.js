// Finds packages of Python. Uses only Node.js.
import { spawnSync } from 'node:child_process';

/** The folder of an installed package of Python, which is not imported; undefined if there is no such package. */
export function pythonPackage(name) {
  const script = `import importlib.util as u; print(u.find_spec("${name}").submodule_search_locations[0])`;
  for (const python of ['python3', '/usr/bin/python3', 'python']) {
    const { status, stdout } = spawnSync(python, ['-c', script], { encoding: 'utf8' });
    if (status === 0) return stdout.trim();
  }
}
