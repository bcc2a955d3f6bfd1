/** The overrides (`section.key=value`) that make the sizes of `base` into `sizes`; `base` may have other keys. */
export function differences(section: string, sizes: object, base: object): string[] {
  return Object.entries(sizes).flatMap(([key, value]) => {
    const other = (base as Record<string, unknown>)[key];
    if (typeof value === 'object') return differences(`${section}.${key}`, value as object, other as object);
    return value === other ? [] : [`${section}.${key}=${value}`];
  });
}
