/** The codes of a data set: for each image its class, and T codes for each of its crops. */
export interface TokenCache {
  readonly path: string;
  readonly images: number;
  /** Crops per image. */
  readonly crops: number;
  /** T: codes per crop. */
  readonly tokens: number;
  /** The class of each image. */
  readonly classes: Int32Array;
  readonly classNames: readonly string[];
  /** How the cache was made; unknown for the layout of the reference implementation. */
  readonly provenance?: Provenance;
  /**
   * Reads the codes of one crop into `into[offset .. offset + tokens]`.
   * @throws DataError if the file is damaged
   */
  read(image: number, crop: number, into: Int32Array, offset: number): Promise<void>;
  close(): Promise<void>;
}

/** How a token cache was made. */
export interface Provenance {
  /** Fingerprint of the tokenizer's weights, in hexadecimal. */
  readonly fingerprint: string;
  readonly codebookSize: number;
  readonly preprocessing: 'ten-crop' | 'flip';
  readonly imageSize: number;
  /** The name of the image folder. */
  readonly source: string;
}
