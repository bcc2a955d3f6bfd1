const MIB = 2 ** 20;
const GIB = 2 ** 30;

/** A number of bytes for people: `3.2 GiB`, or `12.5 MiB` below 1 GiB. */
export function formatBytes(bytes: number): string {
  return bytes >= GIB ? `${(bytes / GIB).toFixed(1)} GiB` : `${(bytes / MIB).toFixed(1)} MiB`;
}

/** A count with its noun: `1 image`, `1,234 images`. */
export function counted(n: number, one: string, many: string): string {
  return `${n.toLocaleString('en-US')} ${n === 1 ? one : many}`;
}

/** A row of a table of two columns: a name and its value. */
export type NameValue = [name: string, value: string];

/**
 * The rows of a table as lines. Each column is as wide as its widest cell, and two spaces separate columns.
 * @param right the columns whose cells are aligned to the right, such as numbers
 */
export function formatTable(
  rows: readonly (readonly string[])[],
  { right = [] }: { right?: readonly number[] } = {},
): string[] {
  const columns = Math.max(0, ...rows.map((row) => row.length));
  const widths = Array.from({ length: columns }, (_, i) =>
    Math.max(...rows.map((row) => (row[i] ?? '').length)),
  );
  return rows.map((row) =>
    row
      .map((cell, i) => (right.includes(i) ? cell.padStart(widths[i]) : cell.padEnd(widths[i])))
      .join('  ')
      .trimEnd(),
  );
}

/** Escapes text for elements and quoted attributes of XML and HTML. */
export function escapeXml(text: string): string {
  return text.replace(
    /[&<>"]/g,
    (sign) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[sign]!,
  );
}
