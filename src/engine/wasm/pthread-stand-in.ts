import { parentPort } from 'node:worker_threads';

// tfjs's shared-memory build does not start before its pool of pthreads has answered. With XNNPACK on one thread they never
// get work, so this only answers; our own kernels have their own pool.
parentPort!.on('message', ({ cmd }: { cmd: string }) => {
  if (cmd === 'load') parentPort!.postMessage({ cmd: 'loaded' });
});
