import { EngineError } from '../../errors.js';

/** How much of an operator's error to keep: PyTorch's first line says what is wrong, the rest where in C++. */
const firstLine = (text: string) => text.split('\n')[0];

/** How PyTorch's allocators, CUDA's libraries and JavaScript say that there is no memory. */
const NO_MEMORY = /out of memory|can't allocate memory|not enough memory|bad_alloc|alloc(ation)?[ _]failed/i;
const REMEDY =
  'lower the batch size (batch_size, --batch), raise accumulation, or train with checkpoint_activations';

/** Long numbers of bytes as people read them. */
const readable = (text: string) =>
  text.replace(/\b(\d{7,}) bytes\b/g, (_, bytes) => `${(Number(bytes) / 2 ** 30).toPrecision(3)} GiB`);

/**
 * One line about something that failed in libtorch, in its own words; where it is memory that lacks, with what to lower.
 * `doing` is what was being done, where those words do not say.
 */
export function failure(cause: unknown, doing?: string): EngineError {
  const { message } = cause as Error;
  const text = `libtorch: ${doing ? `${doing}: ` : ''}${readable(firstLine(message))}`;
  const remedy = NO_MEMORY.test(message) ? `; ${REMEDY}` : '';
  return new EngineError(remedy ? text.replace(/\.$/, '') + remedy : text, { cause });
}
