import { escapeXml } from '../text.js';

/** Text that is already HTML. */
export class Html {
  constructor(readonly text: string) {}
}

/** A value in a template: text is escaped, HTML is not. */
type Part = Html | string | number | undefined | readonly Part[];

function toText(part: Part): string {
  if (part === undefined) return '';
  if (part instanceof Html) return part.text;
  return typeof part === 'object' ? part.map(toText).join('') : escapeXml(String(part));
}

/** HTML from a template, whose values are escaped unless they are HTML. */
export function html(strings: TemplateStringsArray, ...parts: Part[]): Html {
  return new Html(strings.reduce((text, string, i) => text + toText(parts[i - 1]) + string));
}

export interface TableOptions {
  caption?: string;
  head: readonly Part[];
  /** Each row begins with its heading. */
  rows: readonly (readonly Part[])[];
  /** Whether all cells but the headings are numbers, aligned to the right. */
  numbers?: boolean;
}

/** A table that scrolls horizontally if it is too wide. */
export function table({ caption, head, rows, numbers = false }: TableOptions): Html {
  const align = new Html(numbers ? ' class="number"' : '');
  const heading = (part: Part, i: number) => html`<th scope="col"${i > 0 ? align : ''}>${part}</th>`;
  const row = ([first, ...cells]: readonly Part[]) =>
    html`<tr><th scope="row">${first}</th>${cells.map((cell) => html`<td${align}>${cell}</td>`)}</tr>`;
  return html`<div class="scroll" tabindex="0" role="region" aria-label="${caption ?? 'table'}"><table>
${caption === undefined ? '' : html`<caption>${caption}</caption>`}
<thead><tr>${head.map(heading)}</tr></thead>
<tbody>${rows.map(row)}</tbody></table></div>`;
}
