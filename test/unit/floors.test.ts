import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cruise, type ICruiseResult, type IModule } from 'dependency-cruiser';
import { describe, expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** Floor of each place of src, as docs/architecture.md has them: `| 3 | `src/nn/` | … |`. */
const floors = new Map(
  [...readFileSync(join(ROOT, 'docs/architecture.md'), 'utf8').matchAll(/^\| (\d+) \| (.+?) \|/gm)].flatMap(
    ([, floor, places]) => [...places.matchAll(/`(src\/[^`]+)`/g)].map(([, place]) => [place, Number(floor)]),
  ),
);

const placeOf = (path: string) => [...floors.keys()].find((place) => path.startsWith(place));

const { output } = await cruise(
  ['src'],
  { baseDir: ROOT, doNotFollow: { path: 'node_modules' }, exclude: { path: 'wasm/assembly' } },
  { conditionNames: ['import'], extensions: ['.ts', '.js'] },
  { tsConfig: {} },
);
const modules = (output as ICruiseResult).modules.filter(({ source }: IModule) => source.startsWith('src/'));

describe('the house of docs/architecture.md', () => {
  it('has a floor for everything in src', () => {
    const rooms = readdirSync(join(ROOT, 'src'), { withFileTypes: true }).map((entry) =>
      entry.isDirectory() ? `src/${entry.name}/` : `src/${entry.name}`,
    );
    expect(rooms.filter((room) => !floors.has(room))).toEqual([]);
    expect([...floors.keys()].filter((place) => !rooms.includes(place))).toEqual([]);
    expect(modules.length).toBeGreaterThan(150);
  });

  it('imports go down: not up, and not to another folder of the same floor', () => {
    const wrong = modules.flatMap(({ source, dependencies }) =>
      dependencies.flatMap(({ resolved }) => {
        const [from, to] = [placeOf(source), placeOf(resolved)];
        if (!from || !to || from === to || floors.get(from)! > floors.get(to)!) return [];
        return [`${source} → ${resolved}`];
      }),
    );
    expect(wrong).toEqual([]);
  });

  it('no circle of modules', () => {
    const circles = modules.flatMap(({ source, dependencies }) =>
      dependencies.flatMap(({ resolved, circular, dependencyTypes }) =>
        circular && !dependencyTypes.includes('type-only') ? [`${source} → ${resolved}`] : [],
      ),
    );
    expect(circles).toEqual([]);
  });
});
