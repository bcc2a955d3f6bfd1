#!/usr/bin/env node
import { existsSync } from 'node:fs';

const main = new URL('../dist/cli/main.js', import.meta.url);
if (existsSync(main)) {
  await (await import(main)).main(process.argv);
} else {
  console.error('error: alitok is not built yet; run npm run setup');
  process.exitCode = 1;
}
