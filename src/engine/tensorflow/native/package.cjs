// Finds tfjs-node, whose JavaScript and C++ sources the engine uses. A CommonJS module, because both the build and the engine
// (binding.ts, also compiled) load it. Uses only Node.js.
const { existsSync, readFileSync, realpathSync } = require('node:fs');
const { createRequire } = require('node:module');
const { dirname, join } = require('node:path');

/** The folder of alitok. */
const ROOT = join(__dirname, '../../../..');

/** The packages that have it, the preferred one first. Their JavaScript and C++ sources are the same. */
const PACKAGES = ['@tensorflow/tfjs-node-gpu', '@tensorflow/tfjs-node'];

/** Where the build puts a package that it fetches: below alitok, so that it finds alitok's own copy of tfjs. */
const FETCHED = join(ROOT, 'dist/engine/tensorflow/package');

/** The version that fits alitok's tfjs. */
const wantedVersion = () =>
  JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')).peerDependencies[PACKAGES[0]];

function resolveFrom(folder, name) {
  try {
    return realpathSync(createRequire(join(folder, 'x')).resolve(`${name}/package.json`));
  } catch {
    return undefined;
  }
}

/**
 * The first package that is installed, or fetched: its name, version and folder, and the native module that its own
 * installation has downloaded, if any. Undefined if there is none. A package with another copy of tfjs than alitok's is passed
 * over: its kernels would be registered there.
 */
function findPackage(names = PACKAGES) {
  const tfjs = resolveFrom(ROOT, '@tensorflow/tfjs');
  for (const from of [ROOT, FETCHED])
    for (const name of names) {
      const file = resolveFrom(from, name);
      if (!file) continue;
      const path = dirname(file);
      if (resolveFrom(path, '@tensorflow/tfjs') !== tfjs) continue;
      const { version } = JSON.parse(readFileSync(file, 'utf8'));
      const own = join(path, 'lib/napi-v8/tfjs_binding.node');
      return { name, version, path, downloaded: existsSync(own) ? own : undefined };
    }
}

module.exports = { PACKAGES, FETCHED, findPackage, wantedVersion };
