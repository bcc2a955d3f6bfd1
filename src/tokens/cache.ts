import { stat } from 'node:fs/promises';
import { z } from 'zod';
import { CheckpointError, DataError } from '../errors.js';
import { openSafetensors, type Safetensors, SafetensorsWriter } from '../formats/safetensors.js';
import type { Provenance, TokenCache } from './codes.js';
import { openReferenceCodes } from './reference.js';

const FORMAT = 'alitok-token-cache';
const VERSION = '1';

export interface TokenCacheDescription extends Provenance {
  /** Upper bound of the number of images; unreadable ones are missing. */
  readonly images: number;
  readonly crops: number;
  readonly tokens: number;
  readonly classNames: readonly string[];
}

/** Writes a token cache image by image. The file appears at its path on `finish`. */
export class TokenCacheWriter {
  private readonly classes: number[] = [];

  private constructor(
    private readonly file: SafetensorsWriter,
    private readonly description: TokenCacheDescription,
  ) {}

  /** @throws OutputError if the file cannot be created */
  static async create(path: string, description: TokenCacheDescription): Promise<TokenCacheWriter> {
    const { images, crops, tokens, classNames, codebookSize, imageSize } = description;
    const codes = {
      name: 'codes',
      dtype: codebookSize > 65536 ? 'U32' : 'U16',
      shape: [images, crops, tokens],
    } as const;
    const metadata = {
      format: FORMAT,
      version: VERSION,
      fingerprint: description.fingerprint,
      codebook_size: String(codebookSize),
      preprocessing: description.preprocessing,
      image_size: String(imageSize),
      source: description.source,
      class_names: JSON.stringify(classNames),
    };
    return new TokenCacheWriter(await SafetensorsWriter.create(path, codes, metadata), description);
  }

  /**
   * Adds one image.
   * @param codes (crops, tokens), row-major
   * @throws OutputError if the file cannot be written; it is then removed
   */
  async append(codes: ArrayLike<number>, classIndex: number): Promise<void> {
    const { codebookSize, classNames } = this.description;
    const wrong = Array.prototype.find.call(codes, (code) => !(code >= 0 && code < codebookSize));
    if (wrong !== undefined) throw new RangeError(`the code ${wrong} with a codebook of ${codebookSize}`);
    if (!(classIndex in classNames)) throw new RangeError(`class ${classIndex} of ${classNames.length}`);
    await this.file.append(codebookSize > 65536 ? Uint32Array.from(codes) : Uint16Array.from(codes));
    this.classes.push(classIndex);
  }

  /** @throws OutputError if the file cannot be written */
  async finish(): Promise<void> {
    const data = Int32Array.from(this.classes);
    await this.file.finish([{ name: 'classes', dtype: 'I32', shape: [data.length], data }]);
  }

  /** Removes the unfinished file. */
  abort(): Promise<void> {
    return this.file.abort();
  }
}

const Names = z.array(z.string()).min(1);

const Metadata = z.object({
  format: z.literal(FORMAT),
  version: z.literal(VERSION),
  fingerprint: z.string(),
  codebook_size: z.coerce.number().int().positive(),
  preprocessing: z.enum(['ten-crop', 'flip']),
  image_size: z.coerce.number().int().positive(),
  source: z.string(),
  class_names: z.string().transform((text) => Names.parse(JSON.parse(text))),
});

/**
 * Opens a token cache: a file of `TokenCacheWriter`, or a folder in the layout of the reference implementation.
 * @throws DataError if it is missing, damaged or not a token cache
 */
export async function openTokenCache(path: string): Promise<TokenCache> {
  const stats = await stat(path).catch(() => undefined);
  if (!stats) throw new DataError(`there is no token cache ${path}; make one with \`alitok tokenize\``);
  if (stats.isDirectory()) return openReferenceCodes(path);
  let file: Safetensors | undefined;
  try {
    file = await openSafetensors(path);
    return await describe(file);
  } catch (error) {
    await file?.close();
    if (error instanceof CheckpointError) throw new DataError(error.message, { cause: error });
    throw error;
  }
}

async function describe(file: Safetensors): Promise<TokenCache> {
  const { path } = file;
  const metadata = parseMetadata(file);
  const codes = file.tensors.get('codes');
  const classes = file.tensors.get('classes') && (await file.read('classes'));
  const [images, crops, tokens] = codes?.shape ?? [];
  const { class_names: classNames, codebook_size: codebookSize } = metadata;
  const sound =
    codes?.shape.length === 3 &&
    codes.dtype === (codebookSize > 65536 ? 'U32' : 'U16') &&
    images > 0 &&
    classes instanceof Int32Array &&
    classes.length === images &&
    classes.every((index) => index >= 0 && index < classNames.length);
  if (!sound) throw damaged(path, 'its tensors are inconsistent');

  return {
    path,
    images,
    crops,
    tokens,
    classes,
    classNames,
    provenance: {
      fingerprint: metadata.fingerprint,
      codebookSize,
      preprocessing: metadata.preprocessing,
      imageSize: metadata.image_size,
      source: metadata.source,
    },
    async read(image, crop, into, offset) {
      // Read from the file each time: the system caches it in memory, once for all processes.
      const start = (image * crops + crop) * tokens;
      const row = (await file.readRange('codes', start, tokens)) as Uint16Array | Uint32Array;
      if (row.some((code) => code >= codebookSize)) {
        throw damaged(path, `image ${image} has codes outside the codebook of ${codebookSize}`);
      }
      into.set(row, offset);
    },
    close: () => file.close(),
  };
}

function damaged(path: string, what: string): DataError {
  return new DataError(`the token cache ${path} is damaged: ${what}; make it again with \`alitok tokenize\``);
}

function parseMetadata({ path, metadata }: Safetensors): z.infer<typeof Metadata> {
  if (metadata.format !== FORMAT) {
    throw new DataError(`${path} is not a token cache; make one with \`alitok tokenize\``);
  }
  if (metadata.version !== VERSION) {
    throw new DataError(
      `the token cache ${path} has version ${metadata.version}, but this program reads version ${VERSION}; make it again with \`alitok tokenize\``,
    );
  }
  try {
    return Metadata.parse(metadata);
  } catch {
    throw damaged(path, 'its metadata is incomplete');
  }
}

/**
 * Checks that a cache was made with a tokenizer. Caches in the layout of the reference implementation do not name their
 * tokenizer and always pass.
 * @throws DataError if it was made with another tokenizer
 */
export function checkTokenizer({ path, provenance }: TokenCache, fingerprint: string): void {
  if (provenance && provenance.fingerprint !== fingerprint) {
    throw new DataError(
      `the token cache ${path} was made with another tokenizer (${provenance.fingerprint}, not ${fingerprint}); name that tokenizer, or make the cache again with \`alitok tokenize\``,
    );
  }
}
