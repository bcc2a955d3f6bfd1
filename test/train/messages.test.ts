import { readFileSync } from 'node:fs';
import { globSync } from 'tinyglobby';
import ts from 'typescript';
import { describe, expect, it } from 'vitest';
import { parseConfig } from '../../src/config/schema.js';
import { ALONE } from '../../src/engine/distributed/group.js';
import { divide } from '../../src/train/step/division.js';
import { unknownKeys } from '../support/config-space.js';

/** The string literals of a file, without module names, and without words in templates that contain a value. */
function textsOf(path: string): string[] {
  const texts: string[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) return;
    if (ts.isStringLiteral(node) || ts.isNoSubstitutionTemplateLiteral(node)) texts.push(node.text);
    if (ts.isTemplateExpression(node))
      texts.push(
        [node.head.text, ...node.templateSpans.map(({ literal }) => literal.text)]
          .join('\0')
          .replace(/[\w.]*\0[\w.]*/g, ' '),
      );
    ts.forEachChild(node, visit);
  };
  visit(ts.createSourceFile(path, readFileSync(path, 'utf8'), ts.ScriptTarget.Latest, true));
  return texts;
}

/** Names of files, and of tensors in third-party files, that begin like a section. */
const OTHERS = /\.(js|safetensors|bin|pkl|pth|partial)$|^features\.\d/;

describe('messages', () => {
  it('name only existing keys', () => {
    const cwd = new URL('../../src', import.meta.url);
    const wrong = globSync('**/*.ts', { cwd, absolute: true }).flatMap((path) =>
      textsOf(path)
        .flatMap(unknownKeys)
        .filter((key) => !OTHERS.test(key))
        .map((key) => `${path}: ${key}`),
    );
    expect(wrong).toEqual([]);
  });

  it('about a batch that processes cannot divide name the keys of its section', () => {
    const config = parseConfig({}, 'test');
    const group = { ...ALONE, size: 7 };
    for (const section of ['tokenizer_training', 'generator_training', 'features'] as const) {
      let message = '';
      try {
        divide(section, config[section], group);
      } catch (error) {
        message = (error as Error).message;
      }
      expect(message).toMatch(`${section}.batch_size is `);
      expect(unknownKeys(message)).toEqual([]);
    }
  });
});
