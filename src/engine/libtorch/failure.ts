import { EngineError, LESS_MEMORY } from '../../errors.js';

/** How much of an operator's error to keep: PyTorch's first line says what is wrong, the rest where in C++. */
const firstLine = (text: string) => text.split('\n')[0];

/** How PyTorch's allocators, CUDA's libraries and JavaScript say that there is no memory. */
const NO_MEMORY = /out of memory|can't allocate memory|not enough memory|bad_alloc|alloc(ation)?[ _]failed/i;

/** Long numbers of bytes as people read them. */
const readable = (text: string) =>
  text.replace(/\b(\d{7,}) bytes\b/g, (_, digits) => {
    const bytes = Number(digits);
    const [unit, name] = bytes < 2 ** 30 ? [2 ** 20, 'MiB'] : [2 ** 30, 'GiB'];
    return `${Number((bytes / unit).toPrecision(3))} ${name}`;
  });

/**
 * One line about something that failed in libtorch, in its own words; where it is memory that lacks, with what to lower.
 * `doing` is what was being done, where those words do not say.
 */
export function failure(cause: unknown, doing?: string): EngineError {
  const { message } = cause as Error;
  const text = `libtorch: ${doing ? `${doing}: ` : ''}${readable(firstLine(message))}`;
  const remedy = NO_MEMORY.test(message) ? `; ${LESS_MEMORY}` : '';
  return new EngineError(remedy ? text.replace(/\.$/, '') + remedy : text, { cause });
}
