import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { type BrowserContext, chromium, type Page } from 'playwright-core';

const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
export const hasChromium = existsSync(CHROMIUM);

/** Disables the browser's own connections, so that every request is the page's. */
const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

export interface View {
  width: number;
  height: number;
  colours: 'light' | 'dark';
}

/** The page of a file, with its console messages and requests while it was open. */
export interface OpenPage {
  page: Page;
  messages: string[];
  requests: string[];
}

/** Opens HTML files in a headless Chromium with its own temporary profile. */
export async function withChromium<T>(
  run: (open: (path: string, view: View) => Promise<OpenPage>) => Promise<T>,
): Promise<T> {
  const profile = await mkdtemp(join(tmpdir(), 'alitok-chromium-'));
  let context: BrowserContext | undefined;
  try {
    context = await chromium.launchPersistentContext(profile, {
      executablePath: CHROMIUM,
      headless: true,
      args: FLAGS,
    });
    const browser = context;
    return await run(async (path, { colours, ...size }) => {
      const page = await browser.newPage();
      const [messages, requests]: [string[], string[]] = [[], []];
      page.on('console', (message) => messages.push(message.text()));
      page.on('pageerror', (error) => messages.push(error.message));
      page.on('request', (request) => requests.push(request.url()));
      await page.setViewportSize(size);
      await page.emulateMedia({ colorScheme: colours });
      await page.goto(pathToFileURL(path).href);
      return { page, messages, requests };
    });
  } finally {
    await context?.close();
    await rm(profile, { recursive: true, force: true });
  }
}
