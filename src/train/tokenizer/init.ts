import { type AdoptOptions, adopt, type Change, type Plan, planAdoption } from '../../checkpoint/adopt.js';
import { withModel } from '../../checkpoint/model-file.js';
import { resamplePositions, type TableLayout } from '../../checkpoint/positions.js';
import { type TokenizerDescription, tokenizerKind, tokenizerTensors } from '../../checkpoint/tokenizer.js';
import type { Config } from '../../config/schema.js';
import { CheckpointError, option } from '../../errors.js';
import type { TensorFile } from '../../formats/tensor-file.js';
import type { Reporter } from '../../job/reporter.js';
import { type Stage, type TokenizerConfig, tokenizerGeometry } from '../../models/geometry.js';
import { Tokenizer } from '../../models/tokenizer/tokenizer.js';
import type { Random } from '../../random.js';
import { modelChecksum, resolveModel } from '../../run/layout.js';
import type { InitialWeights } from '../../run/record.js';
import { describeInitial } from '../initial-weights.js';

/** The sizes of the tokenizer at `init`, as a config's section. @throws CheckpointError where they cannot be read */
export async function defaultsFrom(init: string): Promise<{ tokenizer: TokenizerConfig }> {
  const { tokenizer } = await describe(init);
  return { tokenizer };
}

/** A config with the kind of prefix that trained weights have: one of `grid` tokens stays one at another image size. */
export function keepPrefix(config: Config, weights: TokenizerConfig): Config {
  if ((weights.prefix_tokens ?? null) === null) return config;
  const { grid } = tokenizerGeometry(config.tokenizer);
  return { ...config, tokenizer: { ...config.tokenizer, prefix_tokens: grid } };
}

/** The stage of the tokenizer at `init`. @throws CheckpointError where it cannot be read */
async function stageOf(init: string): Promise<Stage> {
  return (await describe(init)).stage;
}

async function describe(init: string): Promise<TokenizerDescription> {
  return withModel(await resolveModel(init), tokenizerKind, async (_, description) => description);
}

/** Keys of a tokenizer's section that may differ from those of the weights. */
const MAY_DIFFER = /^(image_size|prefix_tokens|decoder\.class_tokens)$/;

/** The values of a tokenizer's section by their keys: `encoder.width` and so on. */
function flat(section: object, path = ''): [string, unknown][] {
  return Object.entries(section).flatMap(([key, value]) =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
      ? flat(value, `${path}${key}.`)
      : [[`${path}${key}`, value] as [string, unknown]],
  );
}

/** Refuses weights of other sizes than those of the config. @throws CheckpointError */
function checkSizes(path: string, stored: TokenizerConfig, wanted: TokenizerConfig): void {
  const theirs = new Map(flat(stored));
  for (const [key, value] of flat(wanted)) {
    const other = theirs.get(key);
    if (MAY_DIFFER.test(key) || JSON.stringify(other) === JSON.stringify(value)) continue;
    throw new CheckpointError(
      `${path} has tokenizer.${key} ${JSON.stringify(other)}, but the config sets ${JSON.stringify(value)}; leave tokenizer.${key} out to take it from the file`,
    );
  }
}

/** Number of learned tokens in front of the codes in the decoder. */
const frontOf = (stage: Stage, { decoder }: TokenizerConfig) => (stage === 1 ? 1 : decoder.class_tokens);

/** How the rows of a tokenizer's tables lie, by the tables' names. */
function tables(stage: Stage, config: TokenizerConfig): Record<string, TableLayout> {
  const { grid, prefix_tokens: prefix } = tokenizerGeometry(config);
  return {
    latent_tokens: { front: 0, prefix, grid },
    'encoder.positional_embedding': { front: 0, prefix: 0, grid },
    'encoder.latent_token_positional_embedding': { front: 0, prefix, grid },
    'decoder.latent_token_positional_embedding': { front: frontOf(stage, config), prefix, grid },
  };
}

const text = ({ prefix, grid }: TableLayout) => `${grid} × ${grid}${prefix > 0 ? ` + ${prefix}` : ''}`;

/** A positional table, resampled to another grid; front rows of another number are drawn anew. */
function resampled(width: number, from: TableLayout, to: TableLayout): Change | undefined {
  const sameGrid = from.grid === to.grid && from.prefix === to.prefix;
  const sameFront = from.front === to.front;
  if (sameGrid && sameFront) return undefined;
  const how = [
    ...(sameGrid ? [] : [`interpolated from ${text(from)} to ${text(to)}`]),
    ...(sameFront ? [] : [`${to.front} rows in front drawn anew`]),
  ];
  return {
    how: how.join(', '),
    values(stored, initial) {
      const values = initial.slice();
      if (sameFront) values.set(stored.subarray(0, from.front * width));
      const image = stored.subarray(from.front * width);
      values.set(
        resamplePositions(image, width, { ...from, front: 0 }, { ...to, front: 0 }),
        to.front * width,
      );
      return values;
    },
  };
}

/** Opens the file, decides what becomes of each parameter of a tokenizer, and passes that on. */
async function withPlan<T>(
  path: string,
  { config, stage, parameters }: Pick<Tokenizer, 'config' | 'stage' | 'parameters'>,
  use: (plan: Plan[], file: TensorFile) => Promise<T>,
  warn?: Reporter['warn'],
): Promise<T> {
  return withModel(
    await resolveModel(path),
    tokenizerKind,
    async (file, { tokenizer: stored, stage: storedStage }: TokenizerDescription) => {
      if (storedStage < stage)
        throw new CheckpointError(
          `${path} is a tokenizer of stage 1, from which stage 2 takes encoder and codebook: name it with ${option('from')} instead of ${option('init')}`,
        );
      checkSizes(path, stored, config);
      const [from, to] = [tables(storedStage, stored), tables(stage, config)];
      const sameFront = frontOf(storedStage, stored) === frontOf(stage, config);
      const options: AdoptOptions = {
        redrawn: ({ name }) =>
          (name === 'decoder.class_embedding' && !sameFront) ||
          (/_aux\./.test(name) && storedStage === 2) ||
          (name === 'quantize.embed_prob' && !file.tensors.has(name)),
        ignored: tokenizerTensors(stage).ignore,
        change: ({ name, shape }) => (to[name] ? resampled(shape[1], from[name], to[name]) : undefined),
      };
      return use(planAdoption(parameters, file, options), file);
    },
    warn,
  );
}

/** Throws the error that `initTokenizer` would throw for names, shapes and sizes, without reading a tensor. */
export async function checkInit(path: string, config: TokenizerConfig, stage: Stage): Promise<void> {
  await withPlan(path, new Tokenizer(config, stage), async () => {});
}

/**
 * Gives a tokenizer the values of trained weights, strictly by name. Positional tables are interpolated for another grid.
 * Stage 1 can start from a tokenizer of stage 2, whose bidirectional decoder it then trains with causal attention.
 * @throws CheckpointError where they do not fit
 */
export async function initTokenizer(
  path: string,
  tokenizer: Tokenizer,
  random: Random,
  reporter: Reporter,
): Promise<InitialWeights> {
  const adopted = await withPlan(path, tokenizer, (plan, file) => adopt(plan, file, random), reporter.warn);
  const initial = { path, sha256: await modelChecksum(path), ...adopted };
  reporter.info(describeInitial(initial));
  return initial;
}

/** Whether a stage starts from the weights at `init`: stage 2 does, unless they are of stage 1. */
export async function startsFrom(init: string, stage: Stage, stages: readonly Stage[]): Promise<boolean> {
  return stage === 1 || !stages.includes(1) || (await stageOf(init)) === 2;
}
