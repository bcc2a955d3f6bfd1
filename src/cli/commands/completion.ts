import { Argument, type Command } from 'commander';
import { completionScript, SHELLS, type Shell } from '../base/completion.js';
import { examples } from '../base/options.js';

export function register(program: Command): void {
  program
    .command('completion')
    .description('print a script for a shell that completes commands, options and their values')
    .addArgument(new Argument('<shell>', 'which shell').choices(SHELLS))
    .addHelpText(
      'after',
      examples([
        ['source <(alitok completion bash)', 'in ~/.bashrc; for zsh, the same in ~/.zshrc'],
        ['alitok completion fish > ~/.config/fish/completions/alitok.fish', 'once, for fish'],
      ]),
    )
    .action((shell: Shell) => {
      process.stdout.write(completionScript(program, shell));
    });
}
