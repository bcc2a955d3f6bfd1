import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const path = (name: string) => fileURLToPath(new URL(`../../${name}`, import.meta.url));

it.each([
  [[]],
  [['generator.dropout=0', '--tables', 'generators']],
  [['--check', '330e9,43e9,2:1.836,4:3.797']],
])('docs/scaling.md has the tables of test/bench/scale.js %j', (args) => {
  const output = execFileSync(process.execPath, [path('test/bench/scale.js'), ...args], { encoding: 'utf8' });
  const tables = output.split('\n\n').filter((text) => text.startsWith('|'));
  expect(tables.length).toBeGreaterThan(0);
  // If they differ, their inputs have changed: run the script again and copy its tables into the page.
  const page = readFileSync(path('docs/scaling.md'), 'utf8');
  for (const table of tables) expect(page).toContain(table);
});
