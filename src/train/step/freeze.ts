import { ConfigError } from '../../errors.js';
import type { Parameters } from '../../nn/parameters.js';
import { nearest } from '../../suggest.js';

/** A pattern matches whole names, and names below it: `blocks.1` matches blocks.1.norm1.weight, but no name of blocks.10. */
function matcher(pattern: string): RegExp {
  const literal = pattern.split('*').map((part) => part.replace(/[.+?^${}()|[\]\\]/g, '\\$&'));
  return new RegExp(`^${literal.join('.*')}(\\.|$)`);
}

/** The name and those of the modules that it is in: a.b.c, a.b, a. */
function withModules(name: string): string[] {
  const parts = name.split('.');
  return parts.map((_, i) => parts.slice(0, i + 1).join('.'));
}

/**
 * Marks the parameters that the patterns of a config's section match as frozen. `stage` is that of a model with stages, for
 * messages.
 * @throws ConfigError for a pattern that matches none, and where no parameter is left to train
 */
export function freeze(
  parameters: Parameters,
  patterns: readonly string[],
  section: string,
  stage?: number,
): void {
  for (const pattern of patterns) {
    const matches = matcher(pattern);
    const found = [...parameters].filter(({ name }) => matches.test(name));
    if (found.length === 0) {
      const names = new Set([...parameters].flatMap(({ name }) => withModules(name)));
      const close = nearest(pattern, [...names]);
      const hint = close ? `did you mean ${close}?` : '`alitok inspect` lists the parts of a model';
      throw new ConfigError(
        `${section}.freeze: no parameter${stage ? ` of stage ${stage}` : ''} matches ${pattern}; ${hint}`,
      );
    }
    for (const p of found) p.frozen = true;
  }
  if ([...parameters].every((p) => p.frozen || p.buffer))
    throw new ConfigError(
      `${section}.freeze matches all parameters${stage ? ` that stage ${stage} trains` : ', so that none is trained'}; leave some out`,
    );
}
