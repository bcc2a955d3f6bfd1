import { type AdoptOptions, adopt, type Plan, planAdoption } from '../../checkpoint/adopt.js';
import { differingSize, type GeneratorDescription, generatorKind } from '../../checkpoint/generator.js';
import { withModel } from '../../checkpoint/model-file.js';
import { CheckpointError, option } from '../../errors.js';
import type { TensorFile } from '../../formats/tensor-file.js';
import type { Reporter } from '../../job/reporter.js';
import { EMBEDDINGS, type Generator } from '../../models/generator/generator.js';
import { gridOf } from '../../models/geometry.js';
import { isAdapter } from '../../nn/lora.js';
import type { Random } from '../../random.js';
import { modelChecksum, resolveModel } from '../../run/layout.js';
import type { InitialWeights } from '../../run/record.js';
import { openTokenCache } from '../../tokens/cache.js';
import { describeInitial } from '../initial-weights.js';
import { type ClassMap, readClassMap } from './class-map.js';

/** The trained generator that a training starts from. */
export interface GeneratorInit {
  /** A model file or run folder. */
  path: string;
  /** File that maps own classes to its classes. */
  classes?: string;
}

/** What belongs to a generator in training: its parameters, the names of its classes, and where its codes are from. */
interface Target {
  generator: Generator;
  classNames: readonly string[];
  /** Fingerprint of the tokenizer that made the codes, if known. */
  tokenizer?: string;
}

/**
 * The values that a config takes from trained weights and a token cache where it leaves them: the generator's sizes and
 * settings of sampling from the file, the number of classes and how an image's tokens lie from the cache.
 * @throws CheckpointError, DataError where they cannot be read
 */
export async function defaultsFrom(init: string, tokens: string): Promise<object> {
  const { generator, sample } = await withModel(
    await resolveModel(init),
    generatorKind(),
    async (_, description: GeneratorDescription) => description,
  );
  const cache = await openTokenCache(tokens);
  await cache.close();
  const { width, layers, heads, codebook_size } = generator;
  const lying = gridOf(cache.tokens);
  const imageSize = cache.provenance?.imageSize ?? 0;
  const { grid, prefix_tokens } = lying ?? {};
  const patch_size = grid && imageSize % grid === 0 && imageSize > 0 ? imageSize / grid : 16;
  return {
    generator: { width, layers, heads, classes: Math.max(1, cache.classNames.length) },
    tokenizer: { codebook_size, ...(grid && { image_size: grid * patch_size, patch_size, prefix_tokens }) },
    sample,
  };
}

/** Refuses weights of other sizes than those of the config. @throws CheckpointError */
function checkSizes(path: string, stored: GeneratorDescription['generator'], { generator }: Target): void {
  const wanted = generator.geometry;
  const key = differingSize(stored, wanted);
  if (key === undefined) return;
  const name = `${key === 'codebook_size' ? 'tokenizer' : 'generator'}.${key}`;
  throw new CheckpointError(
    `${path} has ${name} ${stored[key]}, but the config sets ${wanted[key]}; leave ${name} out to take it from the file`,
  );
}

/**
 * The rows of the embeddings: those of codes and of "no class" are taken, those of classes mapped or drawn anew.
 * `stored` is the number of classes of the file.
 */
function embeddingRows({ generator }: Target, stored: number, map: ClassMap) {
  const { classes, codebook_size, width } = generator.geometry;
  const firstClass = codebook_size + 1;
  const mapped = map.filter((source) => source !== undefined).length;
  const drawn = classes - mapped;
  const parts = [
    'codes and "no class" taken',
    ...(mapped > 0 ? [`${mapped} ${mapped === 1 ? 'class' : 'classes'} mapped`] : []),
    ...(drawn > 0 ? [`${drawn} ${drawn === 1 ? 'class' : 'classes'} drawn anew`] : []),
  ];
  return {
    how: parts.join(', '),
    values(from: Float32Array, initial: Float32Array): Float32Array {
      const rows = initial.slice();
      const take = (target: number, source: number) =>
        rows.set(from.subarray(source * width, (source + 1) * width), target * width);
      rows.set(from.subarray(0, firstClass * width));
      for (const [own, source] of map.entries())
        if (source !== undefined) take(firstClass + own, firstClass + source);
      take(firstClass + classes, firstClass + stored);
      return rows;
    },
  };
}

/** Opens the file, decides what becomes of each parameter, and passes that on. */
async function withPlan<T>(
  { path, classes: mapFile }: GeneratorInit,
  target: Target,
  { warn }: Pick<Reporter, 'warn'>,
  use: (plan: Plan[], file: TensorFile) => Promise<T>,
): Promise<T> {
  const { geometry, parameters } = target.generator;
  const kind = generatorKind(geometry);
  return withModel(
    await resolveModel(path),
    kind,
    async (file, description: GeneratorDescription) => {
      const { generator: stored, classNames: theirs, tokenizer } = description;
      checkSizes(path, stored, target);
      if (tokenizer && target.tokenizer && tokenizer !== target.tokenizer)
        warn(
          `${path} models the codes of tokenizer ${tokenizer}, but the tokens are those of ${target.tokenizer}: what it knows is about other codes; make the tokens with its tokenizer to keep that`,
        );
      const own = Array.from({ length: geometry.classes }, (_, c) => target.classNames[c] ?? '');
      const same = stored.classes === geometry.classes;
      const renamed = own.filter((name, c) => name && theirs[c] && name !== theirs[c]).length;
      if (same && renamed > 0 && mapFile === undefined)
        warn(
          `${path} has as many classes as the token cache, of which ${renamed} have other names; their rows are taken in order: map them with ${option('initClasses')}, if that is not what you want`,
        );
      const map: ClassMap =
        mapFile === undefined
          ? new Array(geometry.classes).fill(undefined)
          : await readClassMap(
              mapFile,
              { names: own, count: own.length },
              { names: theirs, count: stored.classes },
            );
      const options: AdoptOptions = {
        redrawn: isAdapter,
        change: ({ name }) =>
          name === EMBEDDINGS && (!same || mapFile !== undefined)
            ? embeddingRows(target, stored.classes, map)
            : undefined,
      };
      return use(planAdoption(parameters, file, options), file);
    },
    warn,
  );
}

/**
 * Throws the error that `initGenerator` would throw for names, shapes and classes, without reading a tensor. Warns of what the
 * user may not want.
 */
export async function checkInit(
  init: GeneratorInit,
  target: Target,
  reporter: Pick<Reporter, 'warn'>,
): Promise<void> {
  await withPlan(init, target, reporter, async () => {});
}

/**
 * Gives a generator the values of trained weights, strictly by name. Class rows are drawn anew, or mapped, where the number
 * of classes differs; adapters are drawn.
 * @throws CheckpointError where they do not fit, ConfigError for a wrong map of classes
 */
export async function initGenerator(
  init: GeneratorInit,
  target: Target,
  random: Random,
  reporter: Pick<Reporter, 'info'>,
): Promise<InitialWeights> {
  const silent = { warn: () => {} }; // `checkInit` has warned
  const adopted = await withPlan(init, target, silent, (plan, file) => adopt(plan, file, random));
  const initial = { path: init.path, sha256: await modelChecksum(init.path), ...adopted };
  reporter.info(describeInitial(initial));
  return initial;
}
