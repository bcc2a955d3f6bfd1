import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const PACKAGE = fileURLToPath(new URL('..', import.meta.url));
const require = createRequire(import.meta.url);

export interface ProgramVersions {
  versions: Record<'node' | 'alitok' | 'tfjs', string>;
  /** The git commit of this program, ending in `-dirty` if files were changed; null outside a checkout. */
  git_revision: string | null;
}

/** The version of alitok, from its package.json. */
export function packageVersion(): string {
  return JSON.parse(readFileSync(join(PACKAGE, 'package.json'), 'utf8')).version;
}

let revision: string | null | undefined;

/** Looked up once, since it does not change while the program runs. */
function gitRevision(): string | null {
  revision ??= describeCheckout();
  return revision;
}

function describeCheckout(): string | null {
  if (!existsSync(join(PACKAGE, '.git'))) return null;
  // Loaded here, because every command reads the version of the package, and few ask for the revision.
  const { execFileSync } = require('node:child_process') as typeof import('node:child_process');
  try {
    const arguments_ = ['-C', PACKAGE, 'describe', '--always', '--dirty', '--abbrev=40', '--exclude=*'];
    return execFileSync('git', arguments_, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  } catch {
    return null; // no git here, or no commit yet
  }
}

/** The versions of everything that runs. */
export function programVersions(): ProgramVersions {
  const versions = {
    node: process.versions.node,
    alitok: packageVersion(),
    tfjs: require('@tensorflow/tfjs/package.json').version,
  };
  return { versions, git_revision: gitRevision() };
}
