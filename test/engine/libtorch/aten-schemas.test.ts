import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { describe, expect, it } from 'vitest';
import { loadNative } from '../../../src/engine/libtorch/bridge.js';
import { misfit, parseSchema, UNKNOWN, VERSIONS } from '../../aten/schemas.js';
import { canRun } from '../../support/engines.js';

// Checks every call of an ATen operator in the libtorch engine's source against the schemas of several versions of PyTorch.

const KERNELS = fileURLToPath(new URL('../../../src/engine/libtorch/kernels', import.meta.url));

/** The position of the operator's name among the arguments of functions that call operators (register.ts, backend.ts). */
const NAME_AT: Record<string, number> = {
  use: 0,
  call: 0,
  outs: 0,
  outHalf: 0,
  out: 1,
  outLike: 1,
  outProduct: 1,
};

interface Call {
  where: string;
  name: string;
  args: unknown[];
  more: boolean;
}

/** The value of an argument, as far as it is a literal. */
function written(node: ts.Expression): unknown {
  switch (node.kind) {
    case ts.SyntaxKind.NullKeyword:
      return null;
    case ts.SyntaxKind.TrueKeyword:
      return true;
    case ts.SyntaxKind.FalseKeyword:
      return false;
  }
  if (ts.isNumericLiteral(node)) return Number(node.text);
  if (ts.isStringLiteral(node)) return node.text;
  if (ts.isPrefixUnaryExpression(node) && ts.isNumericLiteral(node.operand))
    return -Number(node.operand.text);
  if (ts.isArrayLiteralExpression(node) && !node.elements.some(ts.isSpreadElement))
    return node.elements.map(written);
  return UNKNOWN;
}

/** The operator names that an expression can have, if they are literals. */
function namesOf(node: ts.Expression): string[] {
  if (ts.isStringLiteral(node)) return [node.text];
  if (ts.isConditionalExpression(node)) return [...namesOf(node.whenTrue), ...namesOf(node.whenFalse)];
  return [];
}

function callsIn(file: string): Call[] {
  const source = ts.createSourceFile(
    file,
    readFileSync(`${KERNELS}/${file}`, 'utf8'),
    ts.ScriptTarget.Latest,
    true,
  );
  const calls: Call[] = [];
  const visit = (node: ts.Node): void => {
    ts.forEachChild(node, visit);
    if (!ts.isCallExpression(node)) return;
    const { expression } = node;
    const callee = ts.isPropertyAccessExpression(expression) ? expression.name.text : expression.getText();
    const at = NAME_AT[callee];
    if (at === undefined || node.arguments.length <= at) return;
    const given = node.arguments.slice(at + 1);
    const spread = given.findIndex(ts.isSpreadElement);
    const args = (spread < 0 ? given : given.slice(0, spread)).map(written);
    const { line } = source.getLineAndCharacterOfPosition(node.getStart());
    for (const name of namesOf(node.arguments[at]))
      if (!name.includes('::')) calls.push({ where: `${file}:${line + 1}`, name, args, more: spread >= 0 });
  };
  visit(source);
  return calls;
}

describe('ATen operators by their schemas', () => {
  const calls = readdirSync(KERNELS).flatMap(callsIn);

  it('every literal call matches each version', () => {
    expect(calls.length).toBeGreaterThan(200);
    const wrong = calls.flatMap(({ where, name, args, more }) => {
      const problem = misfit(name, args, more);
      return problem ? [`${where}: ${problem}`] : [];
    });
    expect(wrong).toEqual([]);
  });

  it('mistakes are found', () => {
    expect(misfit('narow', [])).toMatch(/no version has narow/);
    expect(misfit('narrow', [1, 0, 0])).toMatch(/undefined as length in PyTorch/);
    expect(misfit('narrow', [1, 0, 0, 1, 1])).toMatch(/5 arguments, but takes 4/);
    expect(misfit('sum.dim_IntList', [1, [0], 1])).toMatch(/1 as keepdim/);
    expect(misfit('convolution', [1, 2, null, [1], [0], [1], false, [0], 1])).toBeUndefined();
    expect(misfit('layer_norm', [1, [4], null, null, 1e-5, false])).toBeUndefined();
  });

  const native = canRun('libtorch') ? loadNative() : undefined;
  const release = (version = '') => version.split('.').slice(0, 2).join('.');
  const own = [...VERSIONS].find(([version]) => release(version) === release(native?.runtimeVersion))?.[1];
  it.skipIf(!own)('the schemas match those of the library itself', () => {
    for (const [name, { parameters }] of own!) {
      const [base, overload = ''] = name.split('.');
      const found = native!.find(`aten::${base}`, overload);
      expect(found, name).not.toBeNull();
      const [, actual] = parseSchema(native!.schema(found!).replace('aten::', ''));
      expect(actual.parameters, name).toEqual(parameters);
    }
  });
});
