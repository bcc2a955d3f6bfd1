import type { SequenceStart } from '../data/sequential.js';
import { PartialRows, type RowsJob } from '../files/partial-rows.js';

const INDEX_BYTES = 4;

export interface TokenRowsOptions {
  /** Codes per image: crops × tokens. */
  codes: number;
  codebookSize: number;
  /** Images per batch. */
  batch: number;
  /** Images in the data set. */
  total: number;
}

/**
 * The codes of images that were encoded so far, in a folder beside the token cache. A row holds the index of an image in
 * the data set and the codes of all its crops.
 */
export class TokenRows {
  private constructor(
    private readonly rows: PartialRows,
    private readonly wide: boolean,
  ) {}

  /** Starts in a folder, or resumes from what an interrupted run of the same job left there. Throws OutputError. */
  static async open(
    folder: string,
    job: RowsJob,
    { codes, codebookSize, batch, total }: TokenRowsOptions,
  ): Promise<TokenRows> {
    const wide = codebookSize > 65536;
    const rowBytes = INDEX_BYTES + codes * (wide ? 4 : 2);
    return new TokenRows(
      await PartialRows.open(folder, job, { name: 'codes', rowBytes, batch, total }),
      wide,
    );
  }

  get folder(): string {
    return this.rows.folder;
  }

  /** The number of encoded images. */
  get count(): number {
    return this.rows.count;
  }

  /** Adds images, by their indices in the data set, with the codes of all their crops. Throws OutputError. */
  async append(indices: Uint32Array, codes: Int32Array): Promise<void> {
    const perImage = codes.length / indices.length;
    const rows = Array.from(indices, (index, i) => {
      const own = codes.subarray(i * perImage, (i + 1) * perImage);
      const narrowed = this.wide ? Uint32Array.from(own) : Uint16Array.from(own);
      return Buffer.concat([Buffer.from(Uint32Array.of(index).buffer), Buffer.from(narrowed.buffer)]);
    });
    await this.rows.append(Buffer.concat(rows));
  }

  /** Reads all encoded images. @throws Interrupted if the signal is aborted meanwhile */
  async *read(signal: AbortSignal): AsyncGenerator<{ index: number; codes: Uint16Array | Uint32Array }> {
    for await (const part of this.rows.parts(signal))
      for (let at = 0; at < part.length; at += this.rows.rowBytes) {
        const row = part.slice(at, at + this.rows.rowBytes).buffer; // aligned
        const [index] = new Uint32Array(row, 0, 1);
        const codes = this.wide ? new Uint32Array(row, INDEX_BYTES) : new Uint16Array(row, INDEX_BYTES);
        yield { index, codes };
      }
  }

  /** Where in the data set to resume. Images without codes that lie before encoded ones could not be read. */
  async next(signal: AbortSignal): Promise<SequenceStart> {
    const unreadable: number[] = [];
    let entry = 0;
    for await (const { index } of this.read(signal)) {
      for (; entry < index; entry++) unreadable.push(entry);
      entry += 1;
    }
    return { entry, unreadable };
  }

  /** Closes the folder and leaves it for a run that resumes. */
  close(): Promise<void> {
    return this.rows.close();
  }

  remove(): Promise<void> {
    return this.rows.remove();
  }
}
