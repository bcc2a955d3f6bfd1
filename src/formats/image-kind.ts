/** The kinds of image files that can be decoded. */
export type ReadKind = 'JPEG' | 'PNG' | 'WebP' | 'GIF' | 'TIFF' | 'AVIF' | 'BMP' | 'PNM';

/** Kinds that are recognized, so that messages can name them, but not decoded. SVG is a drawing and has no pixels. */
export type UnreadKind =
  | 'HEIC'
  | 'JPEG 2000'
  | 'JPEG XL'
  | 'Photoshop'
  | 'SVG'
  | 'OpenEXR'
  | 'Radiance HDR'
  | 'DDS'
  | 'QOI'
  | 'GIMP'
  | 'PBM, PAM or PFM';

/** Number of bytes at a file's beginning that `imageKind` looks at. */
export const HEAD_BYTES = 512;

/** Sizes of the second header of a BMP, in bytes. */
export const BMP_HEADERS = [12, 16, 40, 52, 56, 64, 108, 124];

/** Tests of a file's first bytes, one character per byte, tried in this order. */
const TESTS: readonly (readonly [kind: ReadKind | UnreadKind, test: (head: string) => boolean])[] = [
  ['JPEG', begins('\xff\xd8\xff')],
  ['PNG', begins('\x89PNG\r\n\x1a\n')],
  ['WebP', (head) => head.startsWith('RIFF') && head.startsWith('WEBP', 8)],
  ['GIF', begins('GIF87a', 'GIF89a')],
  ['TIFF', begins('II*\0', 'MM\0*', 'II+\0', 'MM\0+')],
  // Two letters are a weak signature, so the reserved fields and the second header's size are tested too.
  [
    'BMP',
    (head) =>
      head.startsWith('BM') &&
      head.startsWith('\0\0\0\0', 6) &&
      head.startsWith('\0\0\0', 15) &&
      BMP_HEADERS.includes(head.charCodeAt(14)),
  ],
  ['PNM', (head) => /^P[2356]\s+[\d#]/.test(head)],
  ['PBM, PAM or PFM', (head) => /^(P[147]\s+[\d#A-Z]|P[Ff]\n)/.test(head)],
  ['AVIF', (head) => brands(head).some((brand) => /^avi[fs]$/.test(brand))],
  ['HEIC', (head) => brands(head).some((brand) => /^(hei[cmsx]|hev[cmsx]|mif1|msf1)$/.test(brand))],
  ['JPEG 2000', begins('\0\0\0\x0cjP  ', '\xff\x4f\xff\x51')],
  ['JPEG XL', begins('\0\0\0\x0cJXL ', '\xff\x0a')],
  ['Photoshop', begins('8BPS\0')],
  [
    'SVG',
    (head) =>
      /^(\xef\xbb\xbf)?\s*(<\?xml[\s\S]*?)?(<!--[\s\S]*?-->\s*|<!DOCTYPE svg[\s\S]*?>\s*)*<svg[\s>]/.test(
        head,
      ),
  ],
  ['OpenEXR', begins('v/1\x01')],
  ['Radiance HDR', begins('#?RADIANCE', '#?RGBE')],
  ['DDS', begins('DDS \x7c\0\0\0')],
  ['QOI', begins('qoif')],
  ['GIMP', begins('gimp xcf')],
];

function begins(...beginnings: string[]): (head: string) => boolean {
  return (head) => beginnings.some((beginning) => head.startsWith(beginning));
}

/** The brands that the first box of an ISO media file, such as an AVIF, lists. */
function brands(head: string): string[] {
  if (!head.startsWith('ftyp', 4)) return [];
  return head.slice(8, head.charCodeAt(2) * 256 + head.charCodeAt(3)).match(/[\s\S]{4}/g) ?? [];
}

const READ: Record<ReadKind, true> = {
  JPEG: true,
  PNG: true,
  WebP: true,
  GIF: true,
  TIFF: true,
  AVIF: true,
  BMP: true,
  PNM: true,
};

export const isRead = (kind: ReadKind | UnreadKind): kind is ReadKind => Object.hasOwn(READ, kind);

/** What kind of image a file is, by its first bytes; undefined if it is not a known kind of image. */
export function imageKind(bytes: Uint8Array): ReadKind | UnreadKind | undefined {
  const { buffer, byteOffset, length } = bytes;
  const head = Buffer.from(buffer, byteOffset, Math.min(length, HEAD_BYTES)).toString('latin1');
  return TESTS.find(([, test]) => test(head))?.[0];
}
