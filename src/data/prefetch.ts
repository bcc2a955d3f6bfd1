/**
 * Loads `items` ahead of the consumer and yields the results in order. At most `concurrency` loads run at a time, and at
 * most `ahead` results are pending or ready. Leaving the iteration starts no further loads and waits for running ones.
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
      // The next waiting load takes the slot.
      const next = waiting.shift();
      if (next) next();
      else running--;
    }
  }

  try {
    for (const item of items) {
      const result = start(item);
      result.catch(() => {}); // thrown when its result is due
      queue.push(result);
      if (queue.length >= ahead) yield await queue.shift()!;
    }
    while (queue.length > 0) yield await queue.shift()!;
  } finally {
    closed = true;
    await Promise.allSettled(queue);
  }
}
