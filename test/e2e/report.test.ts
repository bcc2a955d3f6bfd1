import { existsSync } from 'node:fs';
import { cp, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { alitok, succeed, TINY, temporaryFolder, tinyRun, useOneThread } from './alitok.js';
import { hasChromium, type View, withChromium } from './chromium.js';

const at = await temporaryFolder();
useOneThread();
const [train, tokenizer, generator, page] = [
  at('train'),
  at('tokenizer'),
  at('generator'),
  at('report.html'),
];

beforeAll(async () => {
  await tinyRun(at());
  const tokens = at('tokens.safetensors');
  await succeed(
    'train-ar',
    '-c',
    TINY,
    '--tokens',
    tokens,
    '--tokenizer',
    tokenizer,
    '-r',
    generator,
    'seed=5',
  );
  const evaluate = ['eval', 'reconstruction', '--tokenizer', tokenizer, '-d', train, '-o'];
  await succeed(...evaluate, join(tokenizer, 'evaluations', 'on <train>.json'));
  await succeed(...evaluate, at('elsewhere.json'));
  const { stdout, stderr } = await succeed(
    ...['report', tokenizer, generator, '-o', page, '--evaluation', at('elsewhere.json')],
  );
  expect(stdout).toBe(`report in ${page}\n`);
  expect(stderr).toBe('');
});

/** The style sheet's colours for the three runs. */
const SERIES = {
  light: ['rgb(0, 114, 178)', 'rgb(213, 94, 0)', 'rgb(0, 158, 115)'],
  dark: ['rgb(86, 180, 233)', 'rgb(240, 136, 62)', 'rgb(63, 201, 160)'],
};

describe('the page', () => {
  it('contains everything that the runs recorded, and makes no requests', async () => {
    const text = await readFile(page, 'utf8');
    for (const part of [
      'tokenizer stage1',
      'tokenizer stage2',
      'on &lt;train&gt;',
      'elsewhere',
      'Samples by step',
      'Reconstructions by step',
      'Codebook usage',
      'Next-token accuracy',
      '<code>seed</code>',
      '6 of 6',
      process.versions.node,
    ])
      expect(text).toContain(part);
    const legends = [...text.matchAll(/<ul class="legend">(.*?)<\/ul>/gs)].map(([, items]) => items);
    expect(legends.map((items) => items.match(/<li>/g)?.length)).toEqual([3, 2]); // the generator has no codebook
    const loss = (await readFile(join(generator, 'metrics.jsonl'), 'utf8'))
      .split('\n')
      .map((line) => line && JSON.parse(line).loss);
    expect(text).toContain(
      String(Number(loss.findLast((value) => value !== undefined && value !== '').toPrecision(5))),
    );
    expect(text).not.toMatch(/(src|href)="(?!data:|#)/);
    expect(text).not.toMatch(/url\((?!#)|@import/);
    expect(text.length).toBeLessThan(2_000_000);
  });

  const views: View[] = [
    { width: 1280, height: 800, colours: 'light' },
    { width: 1280, height: 800, colours: 'dark' },
    { width: 390, height: 844, colours: 'light' },
    { width: 390, height: 844, colours: 'dark' },
  ];

  // These tests need Chromium (apt-get install chromium; or its path in CHROMIUM).
  it.skipIf(!hasChromium)('looks right in a browser, at laptop and phone width, light and dark', async () => {
    const { SCREENSHOTS } = process.env;
    await withChromium(async (open) => {
      for (const view of views) {
        const { page: shown, messages, requests } = await open(page, view);
        const screenshot = await shown.screenshot({ fullPage: true });
        if (SCREENSHOTS)
          await writeFile(join(SCREENSHOTS, `report-${view.width}-${view.colours}.png`), screenshot);
        expect(messages).toEqual([]);
        expect(requests.filter((url) => !/^(data|file):/.test(url))).toEqual([]);
        const seen = await shown.evaluate(() => {
          const visible = (element: Element) => (element as HTMLElement).checkVisibility();
          const charts = Array.from(document.querySelectorAll('svg')).filter(visible);
          return {
            overflow: document.documentElement.scrollWidth - innerWidth,
            background: getComputedStyle(document.body).backgroundColor,
            charts: charts.map((svg) => ({
              label: svg.getAttribute('aria-label'),
              width: svg.getBoundingClientRect().width,
              lines: Array.from(svg.querySelectorAll('path')).filter((path) => path.getTotalLength() > 20)
                .length,
              colours: Array.from(svg.querySelectorAll('path')).flatMap((path) => [
                getComputedStyle(path).stroke,
                getComputedStyle(path).fill,
              ]),
            })),
            pictures: Array.from(document.images).map((image) => [image.naturalWidth > 0, image.alt !== '']),
            headings: Array.from(document.querySelectorAll('h1, h2, h3')).map(({ tagName }) =>
              Number(tagName[1]),
            ),
            unnamed: Array.from(document.querySelectorAll('button, input, a, [role=region]')).filter(
              (element) =>
                !element.textContent?.trim() &&
                !element.getAttribute('aria-label') &&
                !(element as HTMLInputElement).labels?.length,
            ).length,
          };
        });
        expect(seen.overflow).toBeLessThanOrEqual(0);
        expect(seen.background).toBe(view.colours === 'dark' ? 'rgb(15, 20, 25)' : 'rgb(255, 255, 255)');
        expect(seen.charts.length).toBeGreaterThanOrEqual(6);
        for (const { label, width, lines, colours } of seen.charts) {
          expect(label).toMatch(/step/);
          expect(width).toBeGreaterThan(300);
          expect(lines).toBeGreaterThan(1);
          expect(colours.some((colour) => SERIES[view.colours].includes(colour))).toBe(true);
        }
        expect(seen.pictures.length).toBeGreaterThanOrEqual(6);
        expect(seen.pictures.every(([drawn, described]) => drawn && described)).toBe(true);
        expect(seen.headings[0]).toBe(1);
        seen.headings.forEach((level, i) => {
          if (i > 0) expect(level - seen.headings[i - 1]).toBeLessThanOrEqual(1);
        });
        expect(seen.unnamed).toBe(0);
        await shown.close();
      }
    });
  });

  it.skipIf(!hasChromium)('lets the reader choose colours and step', async () => {
    await withChromium(async (open) => {
      const { page: shown } = await open(page, views[0]);
      const background = () => shown.evaluate(() => getComputedStyle(document.body).backgroundColor);
      await shown.getByRole('button', { name: 'Dark colours' }).click();
      expect(await background()).toBe('rgb(15, 20, 25)');
      await shown.getByRole('button', { name: 'Light colours' }).click();
      expect(await background()).toBe('rgb(255, 255, 255)');
      const section = shown.getByRole('region', { name: 'Reconstructions by step' });
      const visible = () =>
        section.locator('img:visible').evaluateAll((all) => all.map((img) => (img as HTMLImageElement).alt));
      expect(await visible()).toEqual(
        [1, 2].map((stage) => expect.stringContaining(`tokenizer stage${stage}, step 6`)),
      );
      await section.getByRole('slider').press('Home');
      expect(await visible()).toEqual(
        [1, 2].map((stage) => expect.stringContaining(`tokenizer stage${stage}, step 3`)),
      );
      expect(await section.locator('output').textContent()).toBe('step 3');
    });
  });
});

describe('runs that are damaged or very short', () => {
  const refused = async (message: RegExp, ...args: string[]) => {
    const { code, stderr } = await alitok('report', ...args, '-o', at('none.html'));
    expect(stderr).toMatch(message);
    expect(code).toBe(3);
    await expect(readFile(at('none.html'))).rejects.toThrow('ENOENT');
  };

  it('a folder without a run, and a file that is not an evaluation, are refused', async () => {
    await refused(/error: .*train holds no metrics\.jsonl; name the folder of a training run/, train);
    await refused(/error: .*tiny\.yaml is not a result of alitok eval/, generator, '--evaluation', TINY);
  });

  it('readable parts are shown, and unreadable ones are named', async () => {
    const run = at('damaged');
    await cp(generator, run, { recursive: true });
    const out = at('damaged.html');
    await writeFile(join(run, 'run.json'), '{');
    await writeFile(join(run, 'config.yaml'), 'sead: 1\n');
    await writeFile(join(run, 'images', 'samples-0000006.png'), 'not a picture');
    const { stderr } = await succeed('report', run, '-o', out);
    const text = await readFile(out, 'utf8');
    for (const problem of [
      /run\.json is damaged/,
      /sead: unknown key; did you mean seed\?/,
      /samples-0000006\.png is not a readable picture/,
    ]) {
      expect(stderr).toMatch(problem);
      expect(text).toMatch(problem);
    }
    expect(text).toContain('Training loss');
    await writeFile(join(run, 'metrics.jsonl'), 'damaged\n{}\n');
    await rm(join(run, 'images'), { recursive: true });
    await refused(
      /no step has been recorded yet, or it cannot be read: .*metrics\.jsonl:1: damaged line/,
      run,
    );
  });

  it('a run without a logged step has nothing to draw, and nothing is written', async () => {
    const early = at('early');
    await mkdir(early);
    for (const rows of ['', '{"step": 2, "time": 1, "phase": 1}\n']) {
      await writeFile(join(early, 'metrics.jsonl'), rows);
      const { code, stderr } = await alitok('curves', early, '-o', at('early.png'));
      expect([code, stderr]).toEqual([
        3,
        expect.stringMatching(/^error: .*early: no step has been recorded yet$/m),
      ]);
      expect(existsSync(at('early.png'))).toBe(false);
    }
  });
});
