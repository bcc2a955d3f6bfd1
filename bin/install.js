// Runs after the package has been installed: builds the libtorch engine if libtorch and a C++ compiler are found.
// In a clone, `npm run setup` does that after building the rest.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const path = (name) => fileURLToPath(new URL(`../${name}`, import.meta.url));
if (!existsSync(path('tsconfig.json')))
  spawnSync(process.execPath, [path('src/engine/libtorch/native/build.js'), '--if-found'], {
    stdio: 'inherit',
  });
