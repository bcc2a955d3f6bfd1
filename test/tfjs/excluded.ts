const NAN = 'NaN comes through, so that a run that has gone wrong shows it';

const EVERYWHERE: readonly [string, string][] = [
  ['argmax > ignores NaNs', NAN],
  ['argmin > ignores NaNs', NAN],
  ['argmin > 3D, ignores NaNs', NAN],
  ['maxPool > [x=[3,3,1] f=[2,2] s=1 ignores NaNs', NAN],
];

/** Tests that do not pass on an engine, each with the reason. */
export const EXCLUDED = {
  libtorch: new Map([
    ...EVERYWHERE,
    ['gather > throws when index is out of bound', "it throws, in PyTorch's words"],
  ]),
  tensorflow: new Map([
    ...EVERYWHERE,
    ['gather > throws when index is out of bound', "it throws, in TensorFlow's words"],
    ['tan > numbers exceed float32 precision', 'another number in the last place, for a tangent of 30144'],
  ]),
} satisfies Record<string, ReadonlyMap<string, string>>;

/**
 * Tests that request rows out of range. PyTorch on the CPU throws an error; a CUDA kernel makes the device unusable for the
 * process, so they are not run there. So does the device of aten/pretend-cuda.ts, which ensures that the list is complete.
 */
export const OUT_OF_RANGE: ReadonlySet<string> = new Set([
  'gather > throws when index is out of bound',
  'gatherND > should throw error when x is scalar',
]);
