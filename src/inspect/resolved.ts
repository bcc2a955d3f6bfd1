import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { Document, isScalar } from 'yaml';
import { resolveConfig, valuesOf } from '../config/load.js';
import { ConfigError } from '../errors.js';
import { stageFolders } from '../run/layout.js';
import { CONFIG_FILE } from '../run/record.js';

/** The config file that a path means: itself, or that of a run; of a tokenizer run of both stages, that of stage 2. */
function configFile(path: string): { file: string; run: boolean } {
  if (/\.ya?ml$/.test(path)) return { file: path, run: false };
  const runs = [path, ...stageFolders(path).reverse()];
  const file = runs.map((run) => join(run, CONFIG_FILE)).find((one) => existsSync(one));
  if (file !== undefined && statSync(path).isDirectory()) return { file, run: true };
  throw new ConfigError(`${path} has no config; name a .yaml file or the folder of a training run`);
}

/**
 * The complete config of a .yaml file or a run folder, with defaults and overrides, as YAML that can be loaded again. A
 * comment after a value says where it was set; the config of a run has all values, so there only overrides have one.
 * @throws ConfigError where there is no config, or it is wrong
 */
export function resolvedYaml(path: string, overrides: readonly string[]): string {
  const { file, run } = configFile(path);
  const { config, sourceOf } = resolveConfig(file, overrides);
  const document = new Document(config);
  for (const { path: keys } of valuesOf(config)) {
    const node = document.getIn(keys, true);
    const source = sourceOf(keys);
    if (isScalar(node) && source !== undefined && (source === 'override' || !run))
      node.comment = ` ${source}`;
  }
  document.commentBefore = run
    ? ` Config of the run ${file}`
    : ` Config ${file}. Values without a comment are defaults.`;
  return document.toString({ lineWidth: 0 });
}
