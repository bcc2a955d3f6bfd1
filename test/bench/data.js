// Measures how long it takes to open a data set of ImageNet's size and to read from it: a token cache with ten crops of each
// image, and tar files. Creates them in a folder and removes them afterwards.
//
//   node test/bench/data.js tokens FOLDER [IMAGES]    needs 5.5 kB per image
//   node test/bench/data.js tar FOLDER [IMAGES]       needs 6 kB per image, since image contents are holes in the file
//
// For a smaller disk, give a smaller number of images; both sizes are proportional to it.
import { closeSync, ftruncateSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { openDataset } from '../../dist/data/dataset.js';
import { openTokenCache } from '../../dist/tokens/cache.js';
import { TokenBatches } from '../../dist/train/generator/token-batches.js';

const [kind, folder, given] = process.argv.slice(2);
const images = Number(given ?? 1_281_167);
const CROPS = 10;
const TOKENS = 273;
const CLASSES = 1000;
const BATCH = 2048;

const memory = () => {
  globalThis.gc?.();
  return process.memoryUsage().rss / 2 ** 20;
};
const report = (what, value, unit) =>
  console.log(`${what.padEnd(44)} ${value.toFixed(1).padStart(9)} ${unit}`);

async function timed(what, run) {
  const [before, start] = [memory(), performance.now()];
  const result = await run();
  report(what, performance.now() - start, 'ms');
  report('  memory that it took', memory() - before, 'MiB');
  return result;
}

/** A token cache of random codes. */
function writeTokens(path) {
  const size = images * CROPS * TOKENS * 2;
  const header = Buffer.from(
    JSON.stringify({
      __metadata__: {
        format: 'alitok-token-cache',
        version: '1',
        fingerprint: '0',
        codebook_size: '4096',
        preprocessing: 'ten-crop',
        image_size: '256',
        source: 'bench',
        class_names: JSON.stringify(Array.from({ length: CLASSES }, (_, i) => `class ${i}`)),
      },
      codes: { dtype: 'U16', shape: [images, CROPS, TOKENS], data_offsets: [0, size] },
      classes: { dtype: 'I32', shape: [images], data_offsets: [size, size + 4 * images] },
    }),
  );
  const file = openSync(path, 'w');
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  writeSync(file, Buffer.concat([length, header]));
  const chunk = Buffer.from(Uint16Array.from({ length: 2 ** 23 }, () => Math.random() * 4096).buffer);
  for (let done = 0; done < size; done += chunk.length)
    writeSync(file, chunk, 0, Math.min(chunk.length, size - done));
  writeSync(file, Buffer.from(Int32Array.from({ length: images }, (_, i) => i % CLASSES).buffer));
  closeSync(file);
}

async function benchTokens(path) {
  writeTokens(path);
  const cache = await timed(`open ${images} images × ${CROPS} crops`, () => openTokenCache(path));
  const batches = new TokenBatches(cache, 0);
  await timed('first batch, with the order of the epoch', () => batches.load(0, BATCH));
  const times = [];
  for (let i = 1; i <= 20; i++) {
    const start = performance.now();
    await batches.load(i * BATCH, BATCH);
    times.push(performance.now() - start);
  }
  times.sort((a, b) => a - b);
  report(`a batch of ${BATCH}, median of ${times.length}`, times[times.length >> 1], 'ms');
  report('  the slowest', times.at(-1), 'ms');
  report('memory of the process', memory(), 'MiB');
  await cache.close();
}

/** webdataset's members: 110 kB per image, left as holes, and its class. */
function writeTar(path) {
  const header = (name, size) => {
    const block = Buffer.alloc(512);
    block.write(name);
    block.write(`${size.toString(8).padStart(11, '0')}\0`, 124);
    block.write('0', 156);
    block.write('ustar\x0000', 257);
    block.fill(' ', 148, 156);
    block.write(
      `${block
        .reduce((a, b) => a + b, 0)
        .toString(8)
        .padStart(6, '0')}\0 `,
      148,
    );
    return block;
  };
  const file = openSync(path, 'w');
  let position = 0;
  for (let i = 0; i < images; i++) {
    const key = `n${String(i % CLASSES).padStart(8, '0')}_${i}`;
    const label = Buffer.alloc(512);
    label.write(String(i % CLASSES));
    writeSync(file, header(`${key}.jpg`, 110_000), 0, 512, position);
    position += 512 + Math.ceil(110_000 / 512) * 512;
    const text = String(i % CLASSES).length;
    writeSync(file, Buffer.concat([header(`${key}.cls`, text), label]), 0, 1024, position);
    position += 1024;
  }
  ftruncateSync(file, position + 1024);
  closeSync(file);
}

async function benchTar(path) {
  writeTar(path);
  const set = await timed(`open a tar of ${images} images`, () => openDataset({ folder: path }));
  const start = performance.now();
  for (let i = 0; i < 1000; i++) await set.read(Math.floor(Math.random() * set.size));
  report('read an image', (performance.now() - start) / 1000, 'ms');
}

const path = join(folder, kind === 'tar' ? 'bench.tar' : 'bench.safetensors');
try {
  await (kind === 'tar' ? benchTar(path) : benchTokens(path));
} finally {
  rmSync(path, { force: true });
}
