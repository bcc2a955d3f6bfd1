import { Argument, type Command } from 'commander';
import { examples } from '../base/command.js';
import { completionScript, SHELLS, type Shell } from '../base/completion.js';

export function register(program: Command): void {
  program
    .command('completion')
    .description('print a script that lets a shell complete commands, options and their values')
    .addArgument(new Argument('<shell>', 'which shell').choices(SHELLS))
    .addHelpText(
      'after',
      examples([
        ['source <(alitok completion bash)', 'in ~/.bashrc; with zsh in ~/.zshrc the same'],
        ['alitok completion fish > ~/.config/fish/completions/alitok.fish', 'once, for fish'],
      ]),
    )
    .action((shell: Shell) => {
      process.stdout.write(completionScript(program, shell));
    });
}
