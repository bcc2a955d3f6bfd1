/** How an engine is to compute. Only libtorch has a choice of device and precision. */
export interface EngineOptions {
  /** Processors to use; all if absent. */
  threads?: number;
  /** `cpu`, `cuda` or `cuda:N`; CUDA where there is any, if absent. */
  device?: string;
  /** What linear layers, attention and convolutions multiply. */
  precision?: 'float32' | 'bf16';
  /** Which of a machine's processes this one is: of several, each takes a CUDA device of its own. */
  localRank?: number;
  /** Whether CUDA may multiply float32 numbers with 10 bits of mantissa. */
  tf32?: boolean;
  /** Whether CUDA may only use algorithms that give the same bits each time. */
  deterministic?: boolean;
  /** Told when work goes on more slowly than it could; Node.js's own warnings if absent. */
  warn?: (message: string) => void;
  /** Told which engine was started, on which device, and why others were not. */
  debug?: (message: string) => void;
}
