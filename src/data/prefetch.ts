/**
 * Loads `items` ahead of the consumer and yields the results in order: at most `concurrency` loads run and
 * at most `ahead` results are pending or ready at a time. Leaving the iteration starts no further load and
 * waits for those that run.
 */
export async function* prefetch<T, R>(
  items: Iterable<T>,
  load: (item: T) => Promise<R>,
  { concurrency, ahead }: { concurrency: number; ahead: number },
): AsyncGenerator<R> {
  const queue: Promise<R>[] = [];
  const waiting: (() => void)[] = [];
  let running = 0;
  let closed = false;

  async function start(item: T): Promise<R> {
    if (running >= concurrency) await new Promise<void>((resolve) => waiting.push(resolve));
    else running++;
    try {
      if (closed) throw new Error('closed');
      return await load(item);
    } finally {
      // The place goes to the next in line, or becomes free.
      const next = waiting.shift();
      if (next) next();
      else running--;
    }
  }

  try {
    for (const item of items) {
      const result = start(item);
      result.catch(() => {}); // seen when its turn comes
      queue.push(result);
      if (queue.length >= ahead) yield await queue.shift()!;
    }
    while (queue.length > 0) yield await queue.shift()!;
  } finally {
    closed = true;
    await Promise.allSettled(queue);
  }
}
