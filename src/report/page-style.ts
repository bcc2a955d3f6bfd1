/** The style sheet of a report: light or dark like the system, unless the reader chooses. */
export const STYLE = `
:root {
  color-scheme: light dark;
  --paper: light-dark(#ffffff, #0f1419);
  --panel: light-dark(#f6f8fa, #171d24);
  --ink: light-dark(#1f2328, #e6edf3);
  --muted: light-dark(#57606a, #9aa7b4);
  --line: light-dark(#c4cbd3, #3d4854);
  --grid: light-dark(#e6e8eb, #262e37);
  --link: light-dark(#0a58ca, #79b8ff);
  --warn: light-dark(#9a3412, #ffb37a);
  --series-0: light-dark(#0072b2, #56b4e9);
  --series-1: light-dark(#d55e00, #f0883e);
  --series-2: light-dark(#009e73, #3fc9a0);
  --series-3: light-dark(#b4568f, #e39ac4);
  --series-4: light-dark(#b07800, #f2c14e);
  --series-5: light-dark(#3a8fc7, #a5d8ff);
  --series-6: light-dark(#5a5a5a, #b8b8b8);
}
:root[data-theme=light] { color-scheme: light; }
:root[data-theme=dark] { color-scheme: dark; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
header, main, footer { max-width: 1280px; margin: 0 auto; padding: 0 20px; }
header { display: flex; flex-wrap: wrap; gap: 4px 16px; align-items: center; padding-top: 20px; }
header div { flex: 1 1 260px; min-width: 0; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 36px 0 10px; padding-bottom: 4px; border-bottom: 1px solid var(--line); }
h3 { font-size: .95rem; margin: 0; font-weight: 600; }
p { margin: 6px 0; }
p, footer, caption, .note { color: var(--muted); }
a { color: var(--link); }
nav ul { display: flex; flex-wrap: wrap; gap: 4px 16px; list-style: none; margin: 10px 0 0; padding: 0; }
button { font: inherit; color: inherit; background: var(--panel); border: 1px solid var(--line); border-radius: 6px; padding: 5px 12px; min-height: 36px; cursor: pointer; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; list-style: none; margin: 0 0 12px; padding: 0; }
.chip { display: inline-block; width: 16px; height: 4px; border-radius: 2px; margin-right: 7px; vertical-align: middle; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 380px), 1fr)); gap: 16px; }
figure { margin: 0; padding: 12px; background: var(--panel); border: 1px solid var(--grid); border-radius: 8px; min-width: 0; }
figure svg { display: block; width: 100%; height: auto; }
figure img { display: block; max-width: 100%; height: auto; margin: 8px auto 0; border-radius: 4px; }
figcaption { display: flex; flex-wrap: wrap; gap: 0 10px; justify-content: space-between; align-items: baseline; }
.wide { max-width: 860px; margin: 0 auto; }
.narrow { display: none; }
@media (max-width: 700px) { .wide { display: none; } .narrow { display: block; } }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); gap: 16px; }
.pictures figure > div:not(.shown) { display: none; }
.steps { display: flex; gap: 12px; align-items: center; margin: 8px 0 12px; }
.steps input { flex: 0 1 420px; min-width: 120px; accent-color: var(--series-0); }
.steps output { font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; }
caption { text-align: left; padding-bottom: 6px; max-width: calc(100vw - 40px); }
th, td { text-align: left; vertical-align: top; padding: 5px 14px 5px 0; border-bottom: 1px solid var(--grid); }
thead th { border-bottom-color: var(--line); white-space: nowrap; }
td { font-variant-numeric: tabular-nums; }
td.number, th.number { text-align: right; }
code { font: .92em ui-monospace, monospace; overflow-wrap: anywhere; }
th code { white-space: nowrap; }
td code { display: block; min-width: 40ch; white-space: normal; }
td { white-space: nowrap; }
tbody th { font-weight: 500; min-width: 14ch; }
details { margin-top: 10px; }
summary { cursor: pointer; color: var(--muted); }
figure details { font-size: .85rem; margin-top: 4px; }
.problems { border: 1px solid var(--warn); border-radius: 8px; padding: 8px 16px; margin-top: 20px; }
.problems h2 { margin: 0; border: 0; color: var(--warn); }
.problems ul { margin: 4px 0; padding-left: 20px; overflow-wrap: anywhere; }
footer { margin-top: 40px; padding-bottom: 30px; font-size: .85rem; }
@media (max-width: 600px) { header, main, footer { padding-left: 14px; padding-right: 14px; } figure { padding: 10px 8px; } }
`;
