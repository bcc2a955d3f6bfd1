// Runs after the package has been installed: builds the optional engines whose libraries are found.
// In a clone, `npm run setup` does that after building the rest.
import { existsSync } from 'node:fs';
import { buildEngines } from './engines.js';

if (!existsSync(new URL('../tsconfig.json', import.meta.url))) buildEngines();
