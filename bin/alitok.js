#!/usr/bin/env node
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

// Without any configuration fontconfig prints an error. The environment is changed here, and nowhere else, because the threads of
// libraries read it later, and a process crashes if it changes meanwhile.
if (process.platform === 'linux' && !existsSync('/etc/fonts/fonts.conf'))
  process.env.FONTCONFIG_FILE ??= fileURLToPath(new URL('fonts.conf', import.meta.url));

const { engines } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));
const [, oldMajor, oldMinor, newMajor, newMinor] = /\^(\d+)\.(\d+)\.0 \|\| >=(\d+)\.(\d+)\.0/
  .exec(engines.node)
  .map(Number);
const [major, minor] = process.versions.node.split('.').map(Number);
const runs =
  (major === oldMajor && minor >= oldMinor) || major > newMajor || (major === newMajor && minor >= newMinor);
const main = new URL('../dist/cli/main.js', import.meta.url);

if (!runs) {
  console.error(
    `error: alitok needs Node.js ${oldMajor}.${oldMinor}, ${newMajor}.${newMinor} or newer, and this is ${process.versions.node}; install a newer one`,
  );
  process.exitCode = 1;
} else if (existsSync(main)) {
  await (await import(main)).main(process.argv);
} else {
  console.error('error: alitok is not built yet; run npm run setup');
  process.exitCode = 1;
}
