import { ConfigError } from '../../errors.js';

/** The rank of this process among several, and how they find each other. */
export interface Place {
  rank: number;
  /** How many processes there are. */
  size: number;
  /** The rank on this machine, which decides the GPU. */
  localRank: number;
  /** The number of processes on this machine, if known. */
  localSize?: number;
  /** The address and port of the store where they meet. */
  host: string;
  port: number;
  /** Whether this process runs that store; under torchrun the agent does. */
  serves: boolean;
  /** The prefix of keys in the store, which differs for each restart. */
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

/** The names of the variables, by launcher. */
const CONVENTIONS = [
  { rank: 'RANK', size: 'WORLD_SIZE', localRank: 'LOCAL_RANK' },
  // Only srun sets SLURM_STEP_ID; a batch script without it is a single process.
  { rank: 'SLURM_PROCID', size: 'SLURM_NTASKS', localRank: 'SLURM_LOCALID', onlyWith: 'SLURM_STEP_ID' },
];

/**
 * Reads the place from the environment as set by torchrun and Kubernetes (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR,
 * MASTER_PORT) or srun (SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID, with MASTER_ADDR and MASTER_PORT).
 * Returns undefined for a single process. Throws ConfigError if the variables contradict each other.
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
