// Writes the schemas of the ATen operators that the libtorch engine uses, in one version of PyTorch, for tests of how they are
// called. The schemas come from torchgen/packaged/ATen/native/native_functions.yaml of the Python package.
//   node test/aten/collect.js native_functions.yaml > test/fixtures/aten/2.6.0.txt
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const kernels = fileURLToPath(new URL('../../src/engine/libtorch/kernels', import.meta.url));
const sources = readdirSync(kernels).map((name) => readFileSync(`${kernels}/${name}`, 'utf8'));
const words = new Set(sources.flatMap((text) => [...text.matchAll(/'([\w.]+)'/g)].map(([, word]) => word)));
for (const word of [...words]) if (word.startsWith('_scaled_dot')) words.add(`${word}_backward`); // the gradient's operator

const schemas = readFileSync(process.argv[2], 'utf8').matchAll(/^- func: (([\w.]+)\(.*)$/gm);
const named = [...schemas].filter(([, , name]) => words.has(name)).map(([, schema]) => schema.trim());
console.log(named.sort().join('\n'));
