import type { Config } from './schema.js';

/** One value in which two configs differ, under its key (`tokenizer_training.stage1.phases.0.lr`). */
export interface Difference {
  key: string;
  before: unknown;
  now: unknown;
}

function isNode(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

function compare(before: unknown, now: unknown, path: readonly string[]): Difference[] {
  const comparable =
    isNode(before) && isNode(now) && !(Array.isArray(before) && before.length !== now.length);
  if (comparable)
    return [...new Set([...Object.keys(before), ...Object.keys(now)])].flatMap((key) =>
      compare(before[key], now[key], [...path, key]),
    );
  return JSON.stringify(before) === JSON.stringify(now) ? [] : [{ key: path.join('.'), before, now }];
}

/** The values in which two configs differ; lists of different lengths as a whole. */
export function compareConfigs(before: Config, now: Config): Difference[] {
  return compare(before, now, []);
}

/** `key: before → now` */
export function describeDifference({ key, before, now }: Difference): string {
  return `${key}: ${JSON.stringify(before)} → ${JSON.stringify(now)}`;
}
