/** How an engine computes. Only libtorch and tensorflow support other devices than `cpu`, and only libtorch other precisions than float32. */
export interface EngineOptions {
  /** The number of processors to use; all by default. */
  threads?: number;
  /** `cpu`, `cuda` or `cuda:N`; by default a CUDA device if the machine has one. */
  device?: string;
  /** The precision in which linear layers, attention and convolutions multiply. */
  precision?: 'float32' | 'bf16';
  /** The rank of this process on its machine, which decides its CUDA device. */
  localRank?: number;
  /** Whether CUDA may multiply float32 numbers in TF32, with 10 bits of mantissa. */
  tf32?: boolean;
  /** Whether CUDA uses only algorithms that give the same bits each time. */
  deterministic?: boolean;
  /** Whether the log messages of TensorFlow are printed. */
  verbose?: boolean;
  /** Receives warnings about work that is slower than it could be; by default Node.js's `process.emitWarning`. */
  warn?: (message: string) => void;
  /** Told which engine was started, on which device, and why others were not. */
  debug?: (message: string) => void;
}
