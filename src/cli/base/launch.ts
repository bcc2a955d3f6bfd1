import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { constants } from 'node:os';
import { createInterface } from 'node:readline';
import { ProcessError } from '../../errors.js';

/** How long the others may take to end by themselves after one has failed, in milliseconds. */
const GRACE = 15_000;
/** How long they may take after SIGTERM, in milliseconds. */
const LAST_GRACE = 10_000;

/** Where the output of all processes goes. */
export interface LaunchOutput {
  /** What rank 0 writes to standard output, unchanged. */
  out(text: string): void;
  /** Whole log lines, of one rank or of the launcher. */
  line(rank: number | undefined, text: string): void;
}

/** How a process ended. */
interface Ending {
  rank: number;
  code: number;
  signal: NodeJS.Signals | null;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
}

/** The exit code as a shell gives it: 128 plus the number of the signal. */
function exitCode(code: number | null, signal: NodeJS.Signals | null): number {
  return code ?? 128 + constants.signals[signal!];
}

/** "rank 1 ended by SIGKILL" */
function describe({ rank, code, signal }: Ending): string {
  return `rank ${rank} ended ${signal ? `by ${signal}` : `with exit code ${code}`}`;
}

/** Starts the processes of one attempt. */
function startAll(
  script: string,
  args: readonly string[],
  { processes, port, attempt }: { processes: number; port: number; attempt: number },
  output: LaunchOutput,
): ChildProcess[] {
  return Array.from({ length: processes }, (_, rank) => {
    const child = spawn(process.execPath, [script, ...args], {
      env: {
        ...process.env,
        RANK: String(rank),
        LOCAL_RANK: String(rank),
        WORLD_SIZE: String(processes),
        LOCAL_WORLD_SIZE: String(processes),
        MASTER_ADDR: '127.0.0.1',
        MASTER_PORT: String(port),
        TORCHELASTIC_USE_AGENT_STORE: 'False',
        TORCHELASTIC_RESTART_COUNT: String(attempt),
      },
      // In its own process group, so that Ctrl-C reaches it once, through the launcher; the IPC channel closes when the
      // launcher is gone.
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    });
    if (rank === 0) child.stdout!.setEncoding('utf8').on('data', (text: string) => output.out(text));
    else createInterface(child.stdout!).on('line', (text) => output.line(rank, text));
    createInterface(child.stderr!).on('line', (text) => output.line(rank, text));
    return child;
  });
}

/** Ends all that still run, after the time in which they can notice the missing one and end by themselves. */
function endAll(children: readonly ChildProcess[]): NodeJS.Timeout {
  const kill = (signal: NodeJS.Signals) => {
    for (const child of children)
      if (child.exitCode === null && child.signalCode === null) child.kill(signal);
  };
  return setTimeout(() => {
    kill('SIGTERM');
    setTimeout(() => kill('SIGKILL'), LAST_GRACE).unref();
  }, GRACE);
}

/** The failure that caused the others: the first that is not about another process. */
function cause(failures: readonly Ending[]): Ending | undefined {
  const followed = new ProcessError('').exitCode;
  return failures.find(({ code }) => code !== followed) ?? failures[0];
}

async function attempt(children: readonly ChildProcess[], output: LaunchOutput): Promise<Ending | undefined> {
  const failures: Ending[] = [];
  let timer: NodeJS.Timeout | undefined;
  await Promise.all(
    children.map(async (child, rank) => {
      const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
      const ending = { rank, code: exitCode(code, signal), signal };
      if (ending.code === 0) return;
      failures.push(ending);
      timer ??= endAll(children);
      output.line(undefined, describe(ending));
    }),
  );
  clearTimeout(timer);
  return cause(failures);
}

/**
 * Runs a command in several processes on this machine until all have ended. If one fails, the others end too, and all are
 * started again with the arguments `resumed`, as often as `maxRestarts` allows. Gives the exit code of the first failure, or 0.
 */
export async function launch(
  script: string,
  { args, resumed }: { args: readonly string[]; resumed: readonly string[] },
  { processes, maxRestarts }: { processes: number; maxRestarts: number },
  output: LaunchOutput,
): Promise<number> {
  let children: ChildProcess[] = [];
  let stopped = false;
  const forward = (signal: NodeJS.Signals) => {
    stopped = true;
    for (const child of children) child.kill(signal);
  };
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, forward);
  try {
    for (let restarts = 0; ; restarts++) {
      const given = restarts > 0 ? resumed : args;
      children = startAll(script, given, { processes, port: await freePort(), attempt: restarts }, output);
      const failure = await attempt(children, output);
      if (!failure || stopped || restarts >= maxRestarts) return failure?.code ?? 0;
      output.line(undefined, `restart ${restarts + 1} of at most ${maxRestarts}`);
    }
  } finally {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.off(signal, forward);
  }
}
