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

/** The values in which two configs differ; lists of different lengths count as one value. */
export function compareConfigs(before: Config, now: Config): Difference[] {
  return compare(before, now, []);
}

/** `key: before → now` */
export function describeDifference({ key, before, now }: Difference): string {
  return `${key}: ${JSON.stringify(before) ?? 'none'} → ${JSON.stringify(now) ?? 'none'}`;
}

/**
 * The overrides (`section.key=value`) that turn the values of `base` into those of `wanted`; keys that `wanted` does not
 * have stay as they are.
 */
export function overridesFor(section: string, wanted: object, base: object): string[] {
  return Object.entries(wanted).flatMap(([key, value]) => {
    const other = (base as Record<string, unknown>)[key];
    if (isNode(value) && !Array.isArray(value))
      return overridesFor(`${section}.${key}`, value, other as object);
    return JSON.stringify(value) === JSON.stringify(other)
      ? []
      : [`${section}.${key}=${overrideText(value)}`];
  });
}

/** A value as YAML reads it; text without quotes, lists without spaces, so that a shell takes it as one word. */
const overrideText = (value: unknown) => (typeof value === 'string' ? value : JSON.stringify(value));
