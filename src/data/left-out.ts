import { imageKind, isRead } from '../formats/image-kind.js';

/** What operating systems, storage boxes and notebooks leave in folders, as names in lower case. */
const SYSTEM_FOLDERS = new Set([
  '__macosx',
  '.appledouble',
  '.spotlight-v100',
  '.fseventsd',
  '.trashes',
  '@eadir',
  '@recycle',
  '@recently-snapshot',
  '@tmp',
  '#recycle',
  '#snapshot',
  '$recycle.bin',
  'system volume information',
  'network trash folder',
  'temporary items',
  'lost+found',
  '.ipynb_checkpoints',
  '__pycache__',
]);
const SYSTEM_FILES = /^(\._.*|\.ds_store|\.localized|icon\r|thumbs\.db|ehthumbs(_vista)?\.db|desktop\.ini)$/i;

const READ = /\.(jpe?g|jpe|jfif|a?png|webp|gif|tiff?|avif|bmp|dib|ppm|pgm|pnm)$/i;

/** Images that are not read, by their ending: no need to look into them. */
const UNREAD =
  /\.(hei[cf]s?|hif|jxl|jp2|jpx|jpf|j2k|j2c|psd|psb|svgz?|ico|cur|tga|pcx|exr|hdr|dds|qoi|xcf|pbm|pam|pfm|cr[23]|crw|nef|nrw|arw|srf|sr2|dng|orf|rw2|raf|pef|srw|3fr|erf|kdc|mrw|x3f|iiq|wmf|emf|eps|xbm|xpm|jxr|wdp|bpg)$/i;

/** What is known to be no image: no need to look into it. */
const OTHER =
  /\.(txt|md|json|jsonl|xml|xmp|aae|csv|tsv|ya?ml|toml|html?|pdf|docx?|xlsx?|log|lock|ini|cfg|db|sqlite|py|ipynb|js|ts|sh|cls|cap|caption|npy|npz|pth?|bin|pkl|h5|hdf5|mat|parquet|arrow|safetensors|tfrecord|idx|mp[34]|m4[av]|mov|avi|mkv|webm|wav|flac|ogg|zip|tar|gz|tgz|bz2|xz|zst|7z|rar|md5|sha\d+)$/i;

/** Files that are looked into at most; a data set may have millions. */
const MAX_LOOKS = 1000;

/** Endings that are named in a message. */
const MAX_ENDINGS = 6;

/** Whether a file is an image that is read, by its name. */
export const isImage = (name: string): boolean => READ.test(name);

const LABELS = {
  systemFolders: ['system folder', 'system folders'],
  systemFiles: ['system file', 'system files'],
  hiddenFolders: ['hidden folder', 'hidden folders'],
  hiddenFiles: ['hidden file', 'hidden files'],
  linksBack: ['link back to a folder that it is in', 'links back to folders that they are in'],
  links: ['link in a tar file', 'links in tar files'],
  unread: ['image that is not read', 'images that are not read'],
  others: ['file that is not an image', 'files that are not images'],
  unknown: ['file that was not looked into', 'files that were not looked into'],
} as const;

export type Reason = keyof typeof LABELS;

/** Why a folder or file is left out by its name alone; undefined where it is not. */
export function leftOutByName(name: string, folder: boolean): Reason | undefined {
  if (folder && SYSTEM_FOLDERS.has(name.toLowerCase())) return 'systemFolders';
  if (!folder && SYSTEM_FILES.test(name)) return 'systemFiles';
  if (name.startsWith('.')) return folder ? 'hiddenFolders' : 'hiddenFiles';
  return undefined;
}

const count = (n: number) => n.toLocaleString('en-US');

/** The ending of a file's name as it is counted: `.heic`. */
function endingOf(name: string): string {
  const ending = /[^.](\.[^.]*)$/.exec(name)?.[1].toLowerCase() ?? '';
  return ending.length > 1 && ending.length <= 12 ? ending : 'without an ending';
}

/** What lies in a data set's folders or tar files and is none of its images, counted by why it is left out. */
export class LeftOut {
  private readonly counts = new Map<Reason, number>();
  /** Images that are not read, by their ending. */
  private readonly endings = new Map<string, number>();
  private looks = 0;

  add(reason: Reason): void {
    this.counts.set(reason, (this.counts.get(reason) ?? 0) + 1);
  }

  /**
   * Adds a file whose ending is none that is read. Where the name does not tell what it is, `look` gives its first bytes;
   * it is called for the first thousand files at most.
   */
  async addFile(name: string, look: () => Uint8Array | Promise<Uint8Array>): Promise<void> {
    if (UNREAD.test(name)) this.addUnread(endingOf(name));
    else if (OTHER.test(name)) this.add('others');
    else if (this.looks === MAX_LOOKS) this.add('unknown');
    else {
      this.looks++;
      const kind = imageKind(await look());
      if (kind === undefined) this.add('others');
      else this.addUnread(isRead(kind) ? `${endingOf(name)} (${kind} by content)` : endingOf(name));
    }
  }

  private addUnread(ending: string): void {
    this.add('unread');
    this.endings.set(ending, (this.endings.get(ending) ?? 0) + 1);
  }

  /** All that was left out: `3 system folders, 1 hidden file`; empty where nothing was. */
  get text(): string {
    return (Object.keys(LABELS) as Reason[])
      .flatMap((reason) => {
        const n = this.counts.get(reason) ?? 0;
        return n === 0 ? [] : [`${count(n)} ${LABELS[reason][n === 1 ? 0 : 1]}`];
      })
      .join(', ');
  }

  /** The images that are not read, by their endings, and what to do about them; undefined where there are none. */
  get warning(): string | undefined {
    const n = this.counts.get('unread');
    if (n === undefined) return undefined;
    const all = [...this.endings].sort(([, a], [, b]) => b - a);
    const shown = all.slice(0, MAX_ENDINGS).map(([ending, of]) => `${count(of)} ${ending}`);
    if (all.length > MAX_ENDINGS) shown.push('…');
    const rename = all.some(([ending]) => ending.endsWith('by content)'));
    return `left out ${count(n)} ${LABELS.unread[n === 1 ? 0 : 1]}: ${shown.join(', ')}; convert them, for instance to .png${rename ? ', or rename those whose content is read' : ''}`;
  }
}
