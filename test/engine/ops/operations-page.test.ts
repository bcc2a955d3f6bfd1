import { expect, it } from 'vitest';
import { operationsPage } from './operations-page.js';

it('docs/operations.md is up to date; if not, run "npm run docs:operations"', async () => {
  await expect(operationsPage()).toMatchFileSnapshot('../../../docs/operations.md');
});
