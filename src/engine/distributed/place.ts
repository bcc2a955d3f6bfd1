import { ConfigError } from '../../errors.js';

/** Which of several processes this one is, and where they meet. */
export interface Place {
  rank: number;
  /** How many processes there are. */
  size: number;
  /** The rank among those of this machine: which of its GPUs to take. */
  localRank: number;
  /** How many of them share this machine; undefined where nobody says. */
  localSize?: number;
  /** The address and port of the store through which they find each other. */
  host: string;
  port: number;
  /** Whether this process holds that store; under torchrun its agent does. */
  serves: boolean;
  /** Keeps the keys of one attempt apart from those of the next. */
  prefix: string;
}

type Environment = Record<string, string | undefined>;

const STANDARD_PORT = 29500;

function wholeNumber(env: Environment, name: string): number | undefined {
  const text = env[name];
  if (text === undefined || text === '') return undefined;
  if (!/^\d+$/.test(text)) throw new ConfigError(`${name} is "${text}", but must be a whole number`);
  return Number(text);
}

/** Names of variables that say the same thing: who sets them, and how they are called there. */
const CONVENTIONS = [
  { rank: 'RANK', size: 'WORLD_SIZE', localRank: 'LOCAL_RANK' },
  // Set by srun alone: the batch script around it is one process.
  { rank: 'SLURM_PROCID', size: 'SLURM_NTASKS', localRank: 'SLURM_LOCALID', onlyWith: 'SLURM_STEP_ID' },
];

/**
 * Reads the place from the environment as torchrun and Kubernetes set it (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR,
 * MASTER_PORT), or srun (SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID, beside MASTER_ADDR and MASTER_PORT).
 * Gives undefined where the process is alone. Throws ConfigError where the variables do not fit together.
 */
export function placeFromEnvironment(env: Environment = process.env): Place | undefined {
  for (const { rank: rankName, size: sizeName, localRank: localName, onlyWith } of CONVENTIONS) {
    if (onlyWith && !env[onlyWith]) continue;
    const [rank, size] = [wholeNumber(env, rankName), wholeNumber(env, sizeName)];
    if (size === undefined || size === 1) continue;
    if (rank === undefined || rank >= size)
      throw new ConfigError(
        `${sizeName} is ${size}, but ${rankName} is ${rank ?? 'not set'}; each process needs a ${rankName} from 0 to ${size - 1}`,
      );
    const host = env.MASTER_ADDR;
    if (!host)
      throw new ConfigError(
        `${sizeName} is ${size}, but MASTER_ADDR is not set; set it to the machine of rank 0, or unset ${sizeName} for one process`,
      );
    return {
      rank,
      size,
      localRank: wholeNumber(env, localName) ?? 0,
      localSize: wholeNumber(env, 'LOCAL_WORLD_SIZE'),
      host,
      port: wholeNumber(env, 'MASTER_PORT') ?? STANDARD_PORT,
      serves: rank === 0 && env.TORCHELASTIC_USE_AGENT_STORE !== 'True',
      prefix: `alitok/${env.TORCHELASTIC_RESTART_COUNT ?? 0}`,
    };
  }
  return undefined;
}
