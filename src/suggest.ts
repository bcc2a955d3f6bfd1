import { distance } from 'fastest-levenshtein';

/** The known word that a mistyped one most likely means; undefined if none is near. */
export function nearest(word: string, known: Iterable<string>): string | undefined {
  const plain = (text: string) => text.toLowerCase();
  const [best] = [...known]
    .map((name) => ({ name, letters: distance(plain(word), plain(name)) }))
    .sort((a, b) => a.letters - b.letters);
  return best !== undefined && best.letters <= Math.max(1, word.length / 3) ? best.name : undefined;
}
