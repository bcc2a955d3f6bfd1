import type { ImageSet } from './image-set.js';

/** Who hears what was found: a job, of which this needs no more. */
export interface Listener {
  readonly reporter: { info(message: string): void; warn(message: string): void };
  /** The processes that share the work; the first one speaks. */
  readonly group?: { readonly rank: number };
}

/** At most so many names are in a message. */
const MAX_NAMES = 3;

const count = (n: number, one: string, many: string) =>
  `${n.toLocaleString('en-US')} ${n === 1 ? one : many}`;

/** The first few of many names. */
export const someOf = (names: readonly string[]): string =>
  names.slice(0, MAX_NAMES).join(', ') + (names.length > MAX_NAMES ? ', …' : '');

/** `photos/train: 8 images in 2 classes (left out: 3 system folders, 2 hidden files)`. */
export function foundText({ root, size, classNames, emptyClasses, leftOut }: ImageSet): string {
  const flat = classNames.length === 1 && classNames[0] === '';
  const classes = flat ? '' : ` in ${count(classNames.length, 'class', 'classes')}`;
  const empty =
    emptyClasses.length > 0 ? `, ${emptyClasses.length} without an image: ${someOf(emptyClasses)}` : '';
  const out = leftOut.text === '' ? '' : ` (left out: ${leftOut.text})`;
  return `${root}: ${count(size, 'image', 'images')}${classes}${empty}${out}`;
}

/** Says what a data set has, and what was left out of it; of several processes the first one does. */
export function reportFound(set: ImageSet, { reporter, group }: Listener): void {
  if ((group?.rank ?? 0) > 0) return;
  reporter.info(foundText(set));
  const { warning } = set.leftOut;
  if (warning !== undefined) reporter.warn(`${set.root}: ${warning}`);
}
