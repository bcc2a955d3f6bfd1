import type { Command, Option } from 'commander';

/** The supported shells. */
export const SHELLS = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof SHELLS)[number];

/** What can follow one command. */
interface Node {
  /** The names of the commands up to this one, without the program: `['eval', 'generation']`. */
  path: string[];
  commands: Command[];
  /** Its own options and the global ones. */
  options: readonly Option[];
  /** The values of its first argument, if they are fixed. */
  values: readonly string[];
}

function nodesOf(program: Command): Node[] {
  const visit = (command: Command, path: string[]): Node[] => {
    const help = command.createHelp();
    const commands = help.visibleCommands(command).filter((one) => one.name() !== 'help');
    const options = [...help.visibleOptions(command), ...(path.length > 0 ? program.options : [])];
    const values = command.registeredArguments[0]?.argChoices ?? [];
    return [
      { path, commands, options, values },
      ...commands.flatMap((one) => visit(one, [...path, one.name()])),
    ];
  };
  return visit(program, []);
}

const flagsOf = ({ short, long }: Option) => [short, long].filter((flag) => flag !== undefined);
const takesValue = ({ required, optional }: Option) => required || optional;
/** A word in single quotes of a shell. */
const quoted = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;

/** The script for bash, and for zsh with bashcompinit. Where it completes nothing, the shell completes file names. */
function bash(nodes: readonly Node[]): string {
  const at = (path: string[]) => path.map((name) => `/${name}`).join('');
  const steps = nodes.flatMap(({ path }) =>
    path.length > 0 ? [`${at(path.slice(0, -1))}:${path.at(-1)}`] : [],
  );
  const values = nodes.flatMap(({ path, options }) => {
    const valued = options.filter(takesValue);
    const fixed = valued.filter(({ argChoices }) => argChoices);
    const free = valued.filter(({ argChoices }) => !argChoices).flatMap(flagsOf);
    return [
      ...fixed.map(
        (option) =>
          [flagsOf(option).map((flag) => `${at(path)}:${flag}`), option.argChoices!.join(' ')] as const,
      ),
      ...(free.length > 0 ? [[free.map((flag) => `${at(path)}:${flag}`), ''] as const] : []),
    ];
  });
  const words = nodes.map(({ path, commands, options, values: given }) => ({
    path: at(path),
    plain: [...commands.map((command) => command.name()), ...given].join(' '),
    flags: options.flatMap(flagsOf).join(' '),
  }));
  const pattern = (texts: readonly string[]) => texts.map((text) => `'${text}'`).join('|');
  return `_alitok() {
  local cur="\${COMP_WORDS[COMP_CWORD]}" prev="\${COMP_WORDS[COMP_CWORD-1]}" at='' i
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "$at:\${COMP_WORDS[i]}" in
      ${pattern(steps)}) at="$at/\${COMP_WORDS[i]}" ;;
    esac
  done
  case "$at:$prev" in
${values.map(([keys, list]) => `    ${pattern(keys)}) ${list === '' ? 'return' : `COMPREPLY=($(compgen -W '${list}' -- "$cur")); return`} ;;`).join('\n')}
  esac
  local words='' flags=''
  case "$at" in
${words.map(({ path, plain, flags }) => `    '${path}') words='${plain}'; flags='${flags}' ;;`).join('\n')}
  esac
  case "$cur" in
    -*) COMPREPLY=($(compgen -W "$flags" -- "$cur")) ;;
    *) COMPREPLY=($(compgen -W "$words" -- "$cur")) ;;
  esac
}
complete -o default -F _alitok alitok
`;
}

function fish(nodes: readonly Node[]): string {
  const lines = ['complete -c alitok -e'];
  for (const { path, commands, options, values } of nodes) {
    const seen = path.map((name) => `__fish_seen_subcommand_from ${name}`);
    const here = [
      ...seen,
      ...(commands.length > 0
        ? [`not __fish_seen_subcommand_from ${commands.map((one) => one.name()).join(' ')}`]
        : []),
    ];
    const condition = (tests: string[]) => (tests.length > 0 ? ` -n ${quoted(tests.join('; and '))}` : '');
    for (const command of commands)
      lines.push(
        `complete -c alitok -f${condition(here)} -a ${command.name()} -d ${quoted(command.description())}`,
      );
    if (values.length > 0)
      lines.push(`complete -c alitok -f${condition(here)} -a ${quoted(values.join(' '))}`);
    for (const option of options) {
      const { short, long, argChoices, description } = option;
      const flags = [
        ...(short?.startsWith('--') ? [`-l ${short.slice(2)}`] : short ? [`-s ${short.slice(1)}`] : []),
        ...(long ? [`-l ${long.slice(2)}`] : []),
      ];
      const value = argChoices ? ` -x -a ${quoted(argChoices.join(' '))}` : takesValue(option) ? ' -r' : '';
      lines.push(`complete -c alitok${condition(here)} ${flags.join(' ')}${value} -d ${quoted(description)}`);
    }
  }
  return `${lines.join('\n')}\n`;
}

/** A script for a shell that completes commands, options and their values, and file names elsewhere. */
export function completionScript(program: Command, shell: Shell): string {
  const nodes = nodesOf(program);
  if (shell === 'fish') return fish(nodes);
  const initialise = 'autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n';
  return (shell === 'zsh' ? initialise : '') + bash(nodes);
}
