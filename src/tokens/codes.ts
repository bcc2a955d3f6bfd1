/** The codes of a data set: for each image, its class and one row of T codes a crop. */
export interface TokenCache {
  readonly path: string;
  readonly images: number;
  /** Crops an image. */
  readonly crops: number;
  /** T: codes a crop. */
  readonly tokens: number;
  /** The class of each image. */
  readonly classes: Int32Array;
  readonly classNames: readonly string[];
  /** Where the cache came from; the reference's layout does not say. */
  readonly provenance?: Provenance;
  /**
   * Writes the codes of one crop into `into[offset .. offset + tokens]`.
   * @throws DataError where the file is damaged
   */
  read(image: number, crop: number, into: Int32Array, offset: number): Promise<void>;
  close(): Promise<void>;
}

export interface Provenance {
  /** Identifies the tokenizer's weights, a hexadecimal text. */
  readonly fingerprint: string;
  readonly codebookSize: number;
  readonly preprocessing: 'ten-crop' | 'flip';
  readonly imageSize: number;
  /** The name of the image folder. */
  readonly source: string;
}
