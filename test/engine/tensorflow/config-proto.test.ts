import { expect, it } from 'vitest';
import { configProto } from '../../../src/engine/tensorflow/config-proto.js';

const hex = (configuration: Parameters<typeof configProto>[0]) =>
  Buffer.from(configProto(configuration)).toString('hex');

// The bytes are those of Python's TensorFlow 2.21:
//   from tensorflow.core.protobuf.config_pb2 import ConfigProto
//   cpu = ConfigProto(device_count={'GPU': 0}, intra_op_parallelism_threads=3)
//   gpu = ConfigProto(intra_op_parallelism_threads=300)
//   gpu.gpu_options.allow_growth, gpu.gpu_options.visible_device_list = True, '1'
//   print(cpu.SerializeToString().hex(), gpu.SerializeToString().hex())

it('a process on the CPU uses no GPU', () => {
  expect(hex({ threads: 3, device: 'cpu' })).toBe('0a070a03475055' + '1000' + '1003');
});

it('a process on a GPU sees only that one, and takes memory as it needs it', () => {
  expect(hex({ threads: 300, device: 'cuda:1' })).toBe('10ac02' + '3205' + '2001' + '2a0131');
});
