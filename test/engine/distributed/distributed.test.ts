import { createServer } from 'node:net';
import * as tf from '@tensorflow/tfjs';
import { beforeAll, describe, expect, it } from 'vitest';
import { Buckets } from '../../../src/engine/distributed/buckets.js';
import { ALONE, type Group } from '../../../src/engine/distributed/group.js';
import { placeFromEnvironment } from '../../../src/engine/distributed/place.js';
import { ProcessGroup } from '../../../src/engine/distributed/process-group.js';
import type { LibtorchBackend } from '../../../src/engine/libtorch/backend.js';
import type { Argument } from '../../../src/engine/libtorch/bridge.js';
import * as ops from '../../../src/engine/ops/index.js';
import { ConfigError } from '../../../src/errors.js';
import { differentiate } from '../../../src/nn/gradients.js';
import { ones, zeros } from '../../../src/nn/initializers.js';
import { Parameters } from '../../../src/nn/parameters.js';
import { Random } from '../../../src/random.js';
import { divide } from '../../../src/train/step/division.js';
import { sumGradients } from '../../../src/train/step/gradients.js';
import { canRun, describeEngines, device, openTested, PRETENDED } from '../../support/engines.js';

describe('the place of a process', () => {
  const master = { MASTER_ADDR: 'node1', MASTER_PORT: '1234' };

  it('comes from torchrun, Kubernetes or srun', () => {
    const torchrun = { ...master, RANK: '5', WORLD_SIZE: '8', LOCAL_RANK: '1', LOCAL_WORLD_SIZE: '4' };
    expect(placeFromEnvironment(torchrun)).toEqual({
      ...{ rank: 5, size: 8, localRank: 1, localSize: 4, host: 'node1', port: 1234 },
      ...{ serves: false, prefix: 'alitok/0' },
    });
    // torchrun's agent hosts the store; after a restart, the keys of the previous attempt must not be visible.
    const agent = { TORCHELASTIC_USE_AGENT_STORE: 'True', TORCHELASTIC_RESTART_COUNT: '2' };
    expect(placeFromEnvironment({ ...torchrun, ...agent, RANK: '0' })).toMatchObject({
      serves: false,
      prefix: 'alitok/2',
    });
    const kubernetes = { ...master, RANK: '0', WORLD_SIZE: '2' };
    expect(placeFromEnvironment(kubernetes)).toMatchObject({ rank: 0, localRank: 0, serves: true });
    const slurm = { ...master, SLURM_PROCID: '3', SLURM_NTASKS: '4', SLURM_LOCALID: '1' };
    expect(placeFromEnvironment({ ...slurm, SLURM_STEP_ID: '0' })).toMatchObject({
      rank: 3,
      size: 4,
      localRank: 1,
    });
    // A batch script has these variables too, but is a single process.
    expect(placeFromEnvironment(slurm)).toBeUndefined();
    expect(placeFromEnvironment({})).toBeUndefined();
    expect(placeFromEnvironment({ RANK: '0', WORLD_SIZE: '1' })).toBeUndefined();
  });

  it('is refused if something is missing', () => {
    const refuse = (env: Record<string, string>, message: RegExp) => {
      expect(() => placeFromEnvironment(env)).toThrow(ConfigError);
      expect(() => placeFromEnvironment(env)).toThrow(message);
    };
    refuse({ WORLD_SIZE: '2', ...master }, /RANK is not set/);
    refuse({ WORLD_SIZE: '2', RANK: '2', ...master }, /RANK is 2; each process needs a RANK from 0 to 1/);
    refuse({ WORLD_SIZE: 'two', RANK: '0', ...master }, /WORLD_SIZE is "two"/);
    refuse({ WORLD_SIZE: '2', RANK: '0' }, /MASTER_ADDR is not set/);
  });
});

it('a batch size that is not divisible is refused with the required multiple', () => {
  const four = { ...ALONE, rank: 3, size: 4 };
  expect(divide('x', { batch_size: 24, accumulation: 3 }, four)).toEqual({
    micro: 2,
    parts: 3,
    first: 18,
    own: 6,
  });
  expect(() => divide('x', { batch_size: 18, accumulation: 3 }, four)).toThrow(/multiple of 12/);
});

/** A group in which all processes have the same tensors as this one, and which records what was summed. */
function echo(size: number): { group: Group; sizes: number[][] } {
  const sizes: number[][] = [];
  const sum: Group['allReduce'] = (tensors) => {
    sizes.push(tensors.map((tensor) => tensor.size));
    const sums = tensors.map((tensor) => tf.tidy(() => tf.keep(tensor.mul(size))));
    return async () => sums;
  };
  return { group: { ...ALONE, size, allReduce: sum }, sizes };
}

describeEngines('gradients of several processes', () => {
  const setUp = () => {
    const parameters = new Parameters();
    const scope = parameters.scope();
    const [a, b, c] = ['a', 'b', 'c'].map((name) =>
      scope.parameter(name, [2, 2], name === 'b' ? zeros : ones),
    );
    parameters.initialize(Random.of(0));
    // `a` is used first and last, so its gradient is complete only at the end.
    const loss = (x: tf.Tensor) => () => {
      const y = tf.matMul(tf.matMul(x, a.value), b.value.add(1)).mul(c.value);
      return { loss: tf.mean(tf.matMul(y, a.value).square()) as tf.Scalar };
    };
    return { trained: [a, b, c], loss, dispose: () => parameters.dispose() };
  };
  const x = [
    [1, 2],
    [3, -1],
  ];

  it('arrive one by one, last layer first, each complete', () => {
    const { trained, loss, dispose } = setUp();
    const before = tf.memory().numTensors;
    tf.tidy(() => {
      const told: [number, Float32Array][] = [];
      const { gradients } = differentiate(trained, loss(tf.tensor2d(x)), (i, gradient) =>
        told.push([i, gradient.dataSync<'float32'>()]),
      );
      expect(told.map(([i]) => i)).toEqual([2, 1, 0]);
      for (const [i, gradient] of told) expect([...gradient]).toEqual([...gradients[i]!.dataSync()]);
      const plain = differentiate(trained, loss(tf.tensor2d(x)));
      for (const [i, gradient] of plain.gradients.entries())
        expect([...gradient!.dataSync()]).toEqual([...gradients[i]!.dataSync()]);
    });
    expect(tf.memory().numTensors).toBe(before);
    dispose();
  });

  it('are sums over micro-batches and processes, and leave nothing behind', async () => {
    const { trained, loss, dispose } = setUp();
    const before = tf.memory().numTensors;
    const lossOf = (part: number) => loss(tf.tensor2d(x).add(part))();
    const { group, sizes } = echo(3);
    const alone = await sumGradients(trained, 2, lossOf);
    const shared = await sumGradients(trained, 2, lossOf, { group });
    expect(sizes).toEqual([[4, 4, 4], [1]]);
    expect(shared.metrics.loss).toBeCloseTo(alone.metrics.loss, 3);
    for (const [i, gradient] of shared.gradients.entries()) {
      const expected = alone.gradients[i]!.dataSync();
      gradient!.dataSync().forEach((value, j) => {
        expect(value / (3 * expected[j])).toBeCloseTo(1, 5);
      });
    }
    tf.dispose([alone.gradients, shared.gradients]);
    expect(tf.memory().numTensors).toBe(before);
    dispose();
  });

  it('are missing for a parameter that the loss does not depend on', async () => {
    const { trained, dispose } = setUp();
    const [a, b, c] = trained;
    const before = tf.memory().numTensors;
    const { group, sizes } = echo(2);
    const lossOf = () => ({ loss: tf.sum(a.value.add(c.value)) as tf.Scalar });
    const { gradients } = await sumGradients([a, b, c], 2, lossOf, { group });
    expect(sizes[0]).toEqual([4, 4]);
    expect(gradients.map((gradient) => gradient && [...gradient.dataSync()])).toEqual([
      [4, 4, 4, 4],
      undefined,
      [4, 4, 4, 4],
    ]);
    tf.dispose(gradients);
    expect(tf.memory().numTensors).toBe(before);
    dispose();
  });

  it('leave nothing behind if a micro-batch fails', async () => {
    const { trained, loss, dispose } = setUp();
    const before = tf.memory().numTensors;
    const lossOf = (part: number) => {
      if (part === 1) throw new Error('no memory');
      return loss(tf.tensor2d(x))();
    };
    await expect(sumGradients(trained, 2, lossOf)).rejects.toThrow('no memory');
    expect(tf.memory().numTensors).toBe(before);
    dispose();
  });

  it('are sent when a bucket is full', async () => {
    const { group, sizes } = echo(2);
    const buckets = new Buckets(group, 24);
    for (const [i, length] of [2, 3, 5, 7, 1].entries()) buckets.add(4 - i, tf.fill([length], length));
    buckets.flush();
    expect(sizes).toEqual([[2, 3, 5], [7], [1]]);
    const sums = await buckets.finish();
    expect(sums.map((tensor) => [...tensor!.dataSync()])).toEqual(
      [1, 7, 5, 3, 2].map((length) => Array(length).fill(2 * length)),
    );
    tf.dispose(sums);
  });

  it('dropout of a part of a batch equals that of the whole batch', () => {
    const [whole, seed, rate] = [[6, 5, 3], 0xfedcba98, 0.4];
    const kept = (shape: number[], from: number) => [...ops.dropout(tf.ones(shape), rate, from).dataSync()];
    const all = kept(whole, seed);
    for (const first of [0, 2, 3]) {
      const part = kept([6 - first, 5, 3], ops.seedAt(seed, first * 15));
      expect(part).toEqual(all.slice(first * 15));
    }
    const [q, k, v] = ['q', 'k', 'v'].map((name) => {
      const random = Random.of(1, name);
      return tf.tensor(
        Array.from({ length: 4 * 3 * 2 * 16 }, () => random.normal()),
        [4, 3, 2, 16],
      ) as tf.Tensor4D;
    });
    const attend = (from: number, at: number) => {
      const [a, b, c] = [q, k, v].map((t) => t.slice([from], [-1])) as tf.Tensor4D[];
      return [...ops.attention(a, b, c, { causal: true, dropout: rate, seed: at }).dataSync()];
    };
    const part = attend(2, ops.seedAt(seed, 2 * 2 * 3 * 3));
    const expected = attend(0, seed).slice(2 * 3 * 2 * 16);
    for (const [i, value] of part.entries()) expect(value).toBeCloseTo(expected[i], 5);
  });
});

// On a CUDA device this uses NCCL.
describe.skipIf(!canRun('libtorch') || device === PRETENDED)('a group of one process', () => {
  let port: number;
  beforeAll(async () => {
    await openTested('libtorch');
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    ({ port } = server.address() as { port: number });
    await new Promise((resolve) => server.close(resolve));
  });
  const join = () =>
    ProcessGroup.join({
      ...{ rank: 0, size: 1, localRank: 0, host: '127.0.0.1', port, serves: true, prefix: 'alone' },
    });

  it('joins, works and leaves, and can do so again', async () => {
    for (const value of [3, 4]) {
      const group = await join();
      const x = tf.tensor2d([[value, 1]]);
      const [sum] = await group.allReduce([x])();
      expect(await sum.array()).toEqual([[value, 1]]);
      expect(await (await group.allGather(x)).array()).toEqual([[value, 1]]);
      expect(await (await group.broadcast(x)).array()).toEqual([[value, 1]]);
      expect(await group.allGatherBytes(Uint8Array.of(value))).toEqual([Uint8Array.of(value)]);
      expect(await group.broadcastObject({ value })).toEqual({ value });
      await group.leave();
    }
  });

  it('joins on its device, and reports a failure', async () => {
    const call = (name: string, ...args: Argument[]) =>
      (tf.backend() as LibtorchBackend).call(`alitok::distributed_${name}`, ...args);
    const meet = () => call('join', '127.0.0.1', port, 0, 1, true, 'nowhere', [20, 20], 'gloo', 'cuda:99');
    const joined = async () => {
      while (!call('joined')) await new Promise((resolve) => setTimeout(resolve, 10));
    };
    meet();
    await expect(joined()).rejects.toThrow(/the first sum on cuda:99: /);
    expect(meet).toThrow(/has joined already/);
    call('leave');
    await (await join()).leave();
  });
});
