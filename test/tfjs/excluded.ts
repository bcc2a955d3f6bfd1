const NAN = 'NaN comes through, so that a run that has gone wrong shows it';

/** Tests that do not pass, each with the reason. */
export const EXCLUDED: ReadonlyMap<string, string> = new Map([
  ['argmax > ignores NaNs', NAN],
  ['argmin > ignores NaNs', NAN],
  ['argmin > 3D, ignores NaNs', NAN],
  ['maxPool > [x=[3,3,1] f=[2,2] s=1 ignores NaNs', NAN],
  ['gather > throws when index is out of bound', "it throws, in PyTorch's words"],
]);

/**
 * Tests that ask for rows which are not there. PyTorch on the CPU says so; a kernel for CUDA ends all work of the process on
 * the device, so on one they are not run. The device of aten/pretend-cuda.ts ends with it too: the list is whole.
 */
export const OUT_OF_RANGE: ReadonlySet<string> = new Set([
  'gather > throws when index is out of bound',
  'gatherND > should throw error when x is scalar',
]);
