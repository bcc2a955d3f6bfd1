import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';

export interface Constant {
  name: string;
  shape: readonly number[];
  values: Float32Array;
  /** Store the values as single floats, which TensorFlow prefers for repeated values; otherwise as bytes. */
  asFloats?: boolean;
}

const part = (writer: BinaryWriter, field: number, fill: (writer: BinaryWriter) => void): BinaryWriter => {
  writer.tag(field, WireType.LengthDelimited).fork();
  fill(writer);
  return writer.join();
};

const bytesOf = (values: Float32Array) => new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

/** One node of a GraphDef: a constant as TensorFlow writes it, its attributes in the order of their names. */
export function constantNode({ name, shape, values, asFloats = false }: Constant): Uint8Array {
  const writer = new BinaryWriter();
  part(writer, 1, (node) => {
    node.tag(1, WireType.LengthDelimited).string(name);
    node.tag(2, WireType.LengthDelimited).string('Const');
    part(node, 5, (entry) => {
      entry.tag(1, WireType.LengthDelimited).string('dtype');
      part(entry, 2, (value) => value.tag(6, WireType.Varint).int32(1));
    });
    part(node, 5, (entry) => {
      entry.tag(1, WireType.LengthDelimited).string('value');
      part(entry, 2, (value) =>
        part(value, 8, (tensor) => {
          tensor.tag(1, WireType.Varint).int32(1);
          part(tensor, 2, (dimensions) => {
            for (const size of shape)
              part(dimensions, 2, (dimension) => dimension.tag(1, WireType.Varint).int64(size));
          });
          tensor.tag(asFloats ? 5 : 4, WireType.LengthDelimited).bytes(bytesOf(values));
        }),
      );
    });
  });
  return writer.finish();
}

/** A node that is not a constant, with an input and a text attribute. */
export function operationNode(name: string, op: string, input: string): Uint8Array {
  const writer = new BinaryWriter();
  part(writer, 1, (node) => {
    node.tag(1, WireType.LengthDelimited).string(name);
    node.tag(2, WireType.LengthDelimited).string(op);
    node.tag(3, WireType.LengthDelimited).string(input);
    part(node, 5, (entry) => {
      entry.tag(1, WireType.LengthDelimited).string('padding');
      part(entry, 2, (value) => value.tag(2, WireType.LengthDelimited).string('SAME'));
    });
  });
  return writer.finish();
}

/** The end of a GraphDef: which version of TensorFlow made it. */
export function versionField(version: number): Uint8Array {
  return new BinaryWriter().tag(3, WireType.Varint).int32(version).finish();
}
