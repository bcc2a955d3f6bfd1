import { EngineError, LESS_MEMORY } from '../../errors.js';

/** PyTorch's first line says what is wrong; the rest is a C++ stack trace. */
const firstLine = (text: string) => text.split('\n')[0];

/** Out-of-memory messages of PyTorch's allocators, CUDA's libraries and JavaScript. */
const NO_MEMORY = /out of memory|can't allocate memory|not enough memory|bad_alloc|alloc(ation)?[ _]failed/i;

/** Replaces large numbers of bytes by MiB or GiB. */
const readable = (text: string) =>
  text.replace(/\b(\d{7,}) bytes\b/g, (_, digits) => {
    const bytes = Number(digits);
    const [unit, name] = bytes < 2 ** 30 ? [2 ** 20, 'MiB'] : [2 ** 30, 'GiB'];
    return `${Number((bytes / unit).toPrecision(3))} ${name}`;
  });

/**
 * An error of one line for a failure in libtorch, with libtorch's own message. If memory ran out, it says what to lower.
 * @param doing what failed, where the message does not say
 */
export function failure(cause: unknown, doing?: string): EngineError {
  const { message } = cause as Error;
  const text = `libtorch: ${doing ? `${doing}: ` : ''}${readable(firstLine(message))}`;
  const remedy = NO_MEMORY.test(message) ? `; ${LESS_MEMORY}` : '';
  return new EngineError(remedy ? text.replace(/\.$/, '') + remedy : text, { cause });
}
