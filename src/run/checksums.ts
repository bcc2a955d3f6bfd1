import { readdir, readFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { CheckpointError } from '../errors.js';
import { writeOwnFile } from '../files/atomic.js';
import { fileChecksum } from '../files/bytes.js';

/** Each checkpoint has one, in the format of `sha256sum --check`. */
export const SUMS_FILE = 'SHA256SUMS';

/** A file is missing or was changed. The message says what is wrong, without a remedy. */
export class DamagedError extends CheckpointError {}

/** The checksums of a folder by file name; undefined if it has none. */
async function readSums(folder: string): Promise<Map<string, string> | undefined> {
  const text = await readFile(join(folder, SUMS_FILE), 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  const lines = text.split('\n').filter((line) => line !== '');
  return new Map(
    lines.map((line) => {
      const [sum, name] = line.split('  ');
      return [name, sum];
    }),
  );
}

/** Writes the checksums of all files in a folder beside them. @throws OutputError */
export async function writeChecksums(folder: string): Promise<void> {
  const lines: string[] = [];
  for (const name of (await readdir(folder)).sort())
    lines.push(`${await fileChecksum(join(folder, name))}  ${name}\n`);
  await writeOwnFile(join(folder, SUMS_FILE), lines.join(''));
}

/**
 * Checks that the files of a folder that have a checksum are unchanged. Other files are ignored.
 * @throws DamagedError naming the first that was changed
 */
export async function verifyFolder(folder: string): Promise<void> {
  const sums = await readSums(folder);
  if (!sums) throw new DamagedError(`${join(folder, SUMS_FILE)} is missing`);
  for (const [name, sum] of sums) await verify(folder, name, sum);
}

/** Checks one file, if its folder has checksums. @throws CheckpointError if it was changed */
export async function verifyFile(path: string): Promise<void> {
  const sum = (await readSums(dirname(path)))?.get(basename(path));
  if (sum === undefined) return;
  try {
    await verify(dirname(path), basename(path), sum);
  } catch (error) {
    if (!(error instanceof DamagedError)) throw error;
    throw new CheckpointError(`${error.message}; name another checkpoint of the run, or resume the run`, {
      cause: error,
    });
  }
}

async function verify(folder: string, name: string, sum: string): Promise<void> {
  const path = join(folder, name);
  const found = await fileChecksum(path).catch((error: NodeJS.ErrnoException) => {
    throw new DamagedError(`${path} cannot be read (${error.code})`, { cause: error });
  });
  if (found !== sum)
    throw new DamagedError(`${path} is damaged: its checksum is not the one it was written with`);
}
