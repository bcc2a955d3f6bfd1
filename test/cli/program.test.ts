import { type Command, CommanderError } from 'commander';
import { describe, expect, it, vi } from 'vitest';
import { action, type ConfigOptions, type Invocation, readConfig } from '../../src/cli/base/command.js';
import { describeFailure } from '../../src/cli/base/exit.js';
import { examples, withConfig } from '../../src/cli/base/options.js';
import { createProgram, type Register } from '../../src/cli/program.js';
import { ConfigError, Interrupted } from '../../src/errors.js';

/** A program with the command `train`, and the arguments of its action. */
function setUp() {
  const invocations: Invocation<ConfigOptions & { out: string }>[] = [];
  const train: Register = (program) => {
    withConfig(program.command('train').argument('<stage>'))
      .option('--out <folder>')
      .addHelpText('after', examples([['alitok train 1 --out runs/a', 'trains stage 1']]))
      .action(
        action<ConfigOptions & { out: string }>(async (invocation) => {
          invocations.push(invocation);
        }),
      );
  };
  const program = createProgram([train]);
  const written: string[] = [];
  const write = (text: string) => written.push(text);
  for (const command of [program, ...program.commands])
    command.configureOutput({ writeOut: write, writeErr: write });
  const run = (...args: string[]) => program.parseAsync(['node', 'alitok', ...args]);
  return { run, invocations, text: () => written.join('') };
}

async function failure(...args: string[]) {
  const { run, text } = setUp();
  const error = await run(...args).then(
    () => undefined,
    (e: unknown) => e,
  );
  expect(error).toBeInstanceOf(CommanderError);
  return { text: text(), code: describeFailure(error, false).code };
}

describe('the command line', () => {
  it('passes on options, global options before or after the command, and arguments', async () => {
    const { run, invocations } = setUp();
    await run(
      '--engine',
      'wasm',
      'train',
      '2',
      'seed=4',
      'generator.layers=3',
      '--out',
      'x',
      '--threads',
      '3',
      '-q',
    );
    const [invocation] = invocations;
    expect(invocation.options).toMatchObject({
      engine: 'wasm',
      threads: 3,
      quiet: true,
      out: 'x',
      logLevel: 'info',
    });
    expect(invocation.args[0]).toBe('2');
    const config = await readConfig(invocation);
    expect([config.seed, config.generator.layers]).toEqual([4, 3]);
  });

  it('reads the config file', async () => {
    const { run, invocations } = setUp();
    await run('train', '1', '--config', 'configs/quickstart.yaml');
    expect((await readConfig(invocations[0])).name).toBe('quickstart');
  });

  it.each([
    [['trian'], /unknown command 'trian'\n\(Did you mean train\?\)/],
    [['train', '1', '--ouy', 'x'], /unknown option '--ouy'\n\(Did you mean --out\?\)/],
    [
      ['train', '1', '--engine', 'cuda'],
      /'cuda' is invalid\. Allowed choices are auto, libtorch, tensorflow, wasm, cpu/,
    ],
    [['train', '1', '--threads', '0'], /'0' is invalid\. It must be a whole number of at least 1/],
    [['train', '1', '--threads', '2.5'], /'2.5' is invalid/],
    [['train'], /missing required argument 'stage'/],
    [[], /Usage: alitok/],
  ])('%j is a usage error', async (args, message) => {
    const { text, code } = await failure(...args);
    expect(text).toMatch(message);
    expect(code).toBe(2);
  });

  it('help has examples and the global options', async () => {
    const { text, code } = await failure('train', '--help');
    expect(code).toBe(0);
    expect(text).toContain('  # trains stage 1\n  $ alitok train 1 --out runs/a\n');
    expect(text).toContain('--engine <name>');
  });

  it('closes the log when the action fails', async () => {
    let close: unknown;
    const program = createProgram([
      (parent: Command) => {
        parent.command('fail').action(
          action(async ({ log }) => {
            close = vi.spyOn(log, 'close');
            throw new ConfigError('no');
          }),
        );
      },
    ]);
    await expect(program.parseAsync(['node', 'alitok', 'fail'])).rejects.toThrow(ConfigError);
    expect(close).toHaveBeenCalledOnce();
  });
});

describe('failures', () => {
  it('caused by the user are one line, with the exit code of their kind', () => {
    expect(describeFailure(new ConfigError('a.yaml: seed:\n  wrong'), false)).toEqual({
      text: 'error: a.yaml: seed: wrong\n',
      code: 2,
    });
    expect(describeFailure(new Interrupted('stopped at step 3'), false)).toEqual({
      text: 'stopped at step 3\n',
      code: 130,
    });
  });

  it('an array that does not fit in memory is not reported as a bug', () => {
    const { text, code } = describeFailure(new RangeError('Array buffer allocation failed'), false);
    expect(text).toMatch(
      /^error: not enough memory .*\(Array buffer allocation failed\); lower the batch size.*\n$/,
    );
    expect(code).toBe(5);
    expect(describeFailure(new RangeError('Maximum call stack size exceeded'), false).code).toBe(70);
  });

  it('that are bugs say so, and how to see more', () => {
    const failed = describeFailure(new TypeError('x is undefined'), false);
    expect(failed.text).toBe('error: unexpected: x is undefined\nrun again with --verbose to see where\n');
    expect(failed.code).toBe(70);
    expect(describeFailure('text', false).text).toContain('error: unexpected: text\n');
  });

  it('show stack and causes with --verbose', () => {
    const cause = new RangeError('the inner one');
    const { text } = describeFailure(new ConfigError('the outer one', { cause }), true);
    expect(text).toMatch(/^error: the outer one\nConfigError: the outer one\n +at /);
    expect(text).toMatch(/\[cause\]: RangeError: the inner one\n +at /);
  });
});
