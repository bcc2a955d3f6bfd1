import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';

/** What TensorFlow is started with. */
export interface Configuration {
  /** The number of threads that an operation is divided among. */
  threads: number;
  /** `cpu`, or `cuda:N`, which TensorFlow then sees as its only GPU. */
  device: string;
}

/** Field numbers of TensorFlow's messages (tensorflow/core/protobuf/config.proto). */
const ConfigProto = { deviceCount: 1, intraOpParallelismThreads: 2, gpuOptions: 6 };
const GPUOptions = { allowGrowth: 4, visibleDeviceList: 5 };
/** Field numbers of an entry of a map. */
const Entry = { key: 1, value: 2 };

/**
 * TensorFlow's configuration as a serialized ConfigProto. On the CPU it uses no GPU; on a GPU it takes memory as it is needed
 * instead of all of it.
 */
export function configProto({ threads, device }: Configuration): Uint8Array {
  const writer = new BinaryWriter();
  if (device === 'cpu')
    writer
      .tag(ConfigProto.deviceCount, WireType.LengthDelimited)
      .fork()
      .tag(Entry.key, WireType.LengthDelimited)
      .string('GPU')
      .tag(Entry.value, WireType.Varint)
      .int32(0)
      .join();
  writer.tag(ConfigProto.intraOpParallelismThreads, WireType.Varint).int32(threads);
  if (device !== 'cpu')
    writer
      .tag(ConfigProto.gpuOptions, WireType.LengthDelimited)
      .fork()
      .tag(GPUOptions.allowGrowth, WireType.Varint)
      .bool(true)
      .tag(GPUOptions.visibleDeviceList, WireType.LengthDelimited)
      .string(device.replace('cuda:', ''))
      .join();
  return writer.finish();
}
