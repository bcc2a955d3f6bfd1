import { existsSync, readFileSync } from 'node:fs';
import { relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** Longest first, so that no slow file starts last. The others follow in Vitest's own order. */
const SLOW = [
  'e2e/docs',
  'e2e/torture',
  'e2e/processes',
  'e2e/pipeline',
  'config/space',
  'formats/fuzz',
  'train/trainers',
  'e2e/trouble',
  'engine/libtorch/cuda-kernel-paths',
  'engine/libtorch/cuda-paths',
  'e2e/bad-input',
  'e2e/published',
  'e2e/networks',
  'e2e/package',
  'golden/perceptual',
  'e2e/libtorch',
  'e2e/report',
  'e2e/tensorflow-pipeline',
  'e2e/help',
  'tfjs/cuda',
  'tfjs/libtorch',
  'tfjs/tensorflow',
].map((name) => `${name}.test.ts`);

/** Test files that run on a device, the most important first. */
const ON_DEVICE = readFileSync(new URL('device-tests.txt', import.meta.url), 'utf8')
  .trim()
  .split('\n')
  .map((path) => path.replace('test/', ''));

const FOLDER = fileURLToPath(new URL('.', import.meta.url));

export default class Sequencer extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const first = process.env.ALITOK_TEST_DEVICE ? ON_DEVICE : SLOW;
    const gone = [...SLOW, ...ON_DEVICE].filter((name) => !existsSync(`${FOLDER}/${name}`));
    if (gone.length > 0)
      throw new Error(`there is no ${gone.join(', ')} (test/sequencer.ts, test/device-tests.txt)`);
    const place = ({ moduleId }: TestSpecification) => {
      const at = first.indexOf(relative(FOLDER, moduleId));
      return at < 0 ? first.length : at;
    };
    return (await super.sort(files)).sort((a, b) => place(a) - place(b));
  }
}
