import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cruise, type ICruiseResult, type IModule } from 'dependency-cruiser';
import { describe, expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('..', import.meta.url));

/** Floor of each room, from the tables in docs/architecture.md: `| 3 | `src/nn/` | … |`; a whole number means .5. */
const floors = new Map(
  [
    ...readFileSync(join(ROOT, 'docs/architecture.md'), 'utf8').matchAll(/^\| (\d+(?:\.\d)?) \| (.+?) \|/gm),
  ].flatMap(([, floor, rooms]) =>
    [...rooms.matchAll(/`(src\/[^`]+)`/g)].map(([, room]) => [
      room,
      floor.includes('.') ? Number(floor) : Number(floor) + 0.5,
    ]),
  ),
);

/** The room of a module: its folder, or the module itself if it is directly in src. */
const roomOf = (path: string) => (dirname(path) === 'src' ? path : `${dirname(path)}/`);

const { output } = await cruise(
  ['src'],
  { baseDir: ROOT, doNotFollow: { path: 'node_modules' }, exclude: { path: 'wasm/assembly' } },
  { conditionNames: ['import'], extensions: ['.ts', '.js'] },
  { tsConfig: {} },
);
const modules = (output as ICruiseResult).modules.filter(({ source }: IModule) => source.startsWith('src/'));

describe('the house of docs/architecture.md', () => {
  it('has a floor for every room of src, and only for those', () => {
    const rooms = new Set(modules.map(({ source }) => roomOf(source)));
    expect([...rooms].filter((room) => !floors.has(room))).toEqual([]);
    expect([...floors.keys()].filter((room) => !rooms.has(room))).toEqual([]);
    expect(modules.length).toBeGreaterThan(150);
  });

  it('imports go down: not up, and not to another room of the same floor', () => {
    const wrong = modules.flatMap(({ source, dependencies }) =>
      dependencies.flatMap(({ resolved }) => {
        const [from, to] = [roomOf(source), roomOf(resolved)];
        if (!floors.has(to) || from === to || floors.get(from)! > floors.get(to)!) return [];
        return [`${source} → ${resolved}`];
      }),
    );
    expect(wrong).toEqual([]);
  });

  it('no circular imports', () => {
    const circles = modules.flatMap(({ source, dependencies }) =>
      dependencies.flatMap(({ resolved, circular, dependencyTypes }) =>
        circular && !dependencyTypes.includes('type-only') ? [`${source} → ${resolved}`] : [],
      ),
    );
    expect(circles).toEqual([]);
  });
});
