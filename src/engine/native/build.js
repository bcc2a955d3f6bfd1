// What the builds of native modules have in common. Uses only Node.js, so that it also runs while packages are being installed.
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { NoCompiler } from './compile.js';

/** The folder of the package. */
export const ROOT = join(dirname(fileURLToPath(import.meta.url)), '../../..');

/** Whether this build runs unasked: then a missing library or compiler is no error, and nothing is done if nothing has changed. */
export const ifFound = process.argv.includes('--if-found');

/** Something that the build needs is not on this machine. */
export class NotFound extends Error {}

/** Runs a build. An error is printed with the build's name and becomes the exit code. */
export async function runBuild(name, build) {
  try {
    await build();
  } catch (error) {
    if (ifFound && (error instanceof NotFound || error instanceof NoCompiler)) return;
    console.error(`${name}: ${error.message}`);
    process.exitCode = 1;
  }
}

/** A build's record, which is JSON beside the module; empty if there is none. */
export function readRecord(path) {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch {
    return {};
  }
}

/** All files of a folder with their modification times. */
export const timesOf = (folder) =>
  readdirSync(folder, { recursive: true }).map((name) => `${name} ${statSync(join(folder, name)).mtimeMs}`);

/** Text that differs if a file is replaced, even in place. */
export const stampOf = (path) => `${path} ${statSync(path).size} ${statSync(path).mtimeMs}`;

/** The folder of Node.js's headers: $NAPI_INCLUDE, the one in their package, or the one beside Node.js. */
export function findNodeHeaders() {
  const has = (path) => existsSync(join(path, 'node_api.h'));
  const { NAPI_INCLUDE } = process.env;
  if (NAPI_INCLUDE) {
    if (has(NAPI_INCLUDE)) return NAPI_INCLUDE;
    throw new Error(
      `NAPI_INCLUDE is ${NAPI_INCLUDE}, but ${join(NAPI_INCLUDE, 'node_api.h')} does not exist`,
    );
  }
  // In a project that installed alitok, npm puts the package beside alitok.
  const found = [
    join(ROOT, 'node_modules/node-api-headers/include'),
    join(ROOT, '../node-api-headers/include'),
    join(dirname(process.execPath), '../include/node'),
  ].find(has);
  if (found) return found;
  throw new Error(
    'the headers of Node.js are missing: run "npm install node-api-headers", or set NAPI_INCLUDE to their folder',
  );
}
