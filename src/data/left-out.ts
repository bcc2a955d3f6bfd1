import { imageKind, isRead } from '../formats/image-kind.js';

/** Folders that operating systems, network storage and notebooks create, in lower case. */
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

/** Extensions of image formats that are not supported; such files need not be opened. */
const UNREAD =
  /\.(hei[cf]s?|hif|jxl|jp2|jpx|jpf|j2k|j2c|psd|psb|svgz?|ico|cur|tga|pcx|exr|hdr|dds|qoi|xcf|pbm|pam|pfm|cr[23]|crw|nef|nrw|arw|srf|sr2|dng|orf|rw2|raf|pef|srw|3fr|erf|kdc|mrw|x3f|iiq|wmf|emf|eps|xbm|xpm|jxr|wdp|bpg)$/i;

/** Extensions of files that are not images; such files need not be opened. */
const OTHER =
  /\.(txt|md|json|jsonl|xml|xmp|aae|csv|tsv|ya?ml|toml|html?|pdf|docx?|xlsx?|log|lock|ini|cfg|db|sqlite|py|ipynb|js|ts|sh|cls|cap|caption|npy|npz|pth?|bin|pkl|h5|hdf5|mat|parquet|arrow|safetensors|tfrecord|idx|mp[34]|m4[av]|mov|avi|mkv|webm|wav|flac|ogg|zip|tar|gz|tgz|bz2|xz|zst|7z|rar|md5|sha\d+)$/i;

/** Maximum number of files that are opened to find their type; a data set may have millions. */
const MAX_LOOKS = 1000;

/** Maximum number of extensions in a message. */
const MAX_ENDINGS = 6;

/** Whether a file's extension is that of a supported image format. */
export const isImage = (name: string): boolean => READ.test(name);

const LABELS = {
  systemFolders: ['system folder', 'system folders'],
  systemFiles: ['system file', 'system files'],
  hiddenFolders: ['hidden folder', 'hidden folders'],
  hiddenFiles: ['hidden file', 'hidden files'],
  linksBack: ['link to a parent folder', 'links to parent folders'],
  links: ['link in a tar file', 'links in tar files'],
  unread: ['unsupported image', 'unsupported images'],
  others: ['file that is not an image', 'files that are not images'],
  unknown: ['file that was not checked', 'files that were not checked'],
} as const;

export type Reason = keyof typeof LABELS;

/** Why a folder or file is left out because of its name; undefined if it is not. */
export function leftOutByName(name: string, folder: boolean): Reason | undefined {
  if (folder && SYSTEM_FOLDERS.has(name.toLowerCase())) return 'systemFolders';
  if (!folder && SYSTEM_FILES.test(name)) return 'systemFiles';
  if (name.startsWith('.')) return folder ? 'hiddenFolders' : 'hiddenFiles';
  return undefined;
}

const count = (n: number) => n.toLocaleString('en-US');

/** The extension of a file under which it is counted: `.heic`. */
function endingOf(name: string): string {
  const ending = /[^.](\.[^.]*)$/.exec(name)?.[1].toLowerCase() ?? '';
  return ending.length > 1 && ending.length <= 12 ? ending : 'without extension';
}

/** Counts the files and folders of a data set that are not used, by reason. */
export class LeftOut {
  private readonly counts = new Map<Reason, number>();
  /** Unsupported images, by extension. */
  private readonly endings = new Map<string, number>();
  private looks = 0;

  add(reason: Reason): void {
    this.counts.set(reason, (this.counts.get(reason) ?? 0) + 1);
  }

  /**
   * Counts a file without the extension of a supported format. If its name does not tell what it is, `look` reads its first
   * bytes; it is called for at most the first thousand such files.
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

  /** Everything that was left out: `3 system folders, 1 hidden file`; empty if nothing was. */
  get text(): string {
    return (Object.keys(LABELS) as Reason[])
      .flatMap((reason) => {
        const n = this.counts.get(reason) ?? 0;
        return n === 0 ? [] : [`${count(n)} ${LABELS[reason][n === 1 ? 0 : 1]}`];
      })
      .join(', ');
  }

  /** Names the unsupported images by extension, and the remedy; undefined if there are none. */
  get warning(): string | undefined {
    const n = this.counts.get('unread');
    if (n === undefined) return undefined;
    const all = [...this.endings].sort(([, a], [, b]) => b - a);
    const shown = all.slice(0, MAX_ENDINGS).map(([ending, of]) => `${count(of)} ${ending}`);
    if (all.length > MAX_ENDINGS) shown.push('…');
    const rename = all.some(([ending]) => ending.endsWith('by content)'));
    return `left out ${count(n)} ${LABELS.unread[n === 1 ? 0 : 1]}: ${shown.join(', ')}; convert them, for instance to .png${rename ? ', or rename those whose content is supported' : ''}`;
  }
}
