import { parentPort } from 'node:worker_threads';

// tfjs's shared-memory build will not start before its pool of pthreads has answered. With XNNPACK on one thread none
// of them ever runs, so this does nothing but answer; our own kernels have a pool of their own.
parentPort!.on('message', ({ cmd }: { cmd: string }) => {
  if (cmd === 'load') parentPort!.postMessage({ cmd: 'loaded' });
});
