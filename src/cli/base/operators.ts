import { type OperatorResult, shareOfLimit } from '../../doctor/compare-operators.js';
import { OPERATOR_CHECKS } from '../../doctor/operators.js';

type Line = [name: string, value: string];

/** How many operations are right, and each that is not. */
export function operatorsText(results: readonly OperatorResult[]): Line[] {
  const right = results.filter(({ passed }) => passed);
  const farthest = right.reduce<OperatorResult | undefined>(
    (most, one) => (most && shareOfLimit(most) >= shareOfLimit(one) ? most : one),
    undefined,
  );
  const most =
    farthest && `; farthest off by ${farthest.error.toExponential(1)} (${farthest.name}, ${farthest.worst})`;
  const wrong = results.filter(({ passed }) => !passed);
  const lost = results.at(-1)?.lost;
  return [
    ['operators', `${right.length} of ${OPERATOR_CHECKS.length} agree with the CPU${most ?? ''}`],
    ...wrong.map(({ name, failure, error, worst, limit }): Line => {
      if (failure) return ['', `${name} FAILED: ${failure}`];
      return ['', `${name} is WRONG: ${worst} is off by ${error.toExponential(1)}, more than ${limit}`];
    }),
    ...(lost ? [['', 'the device answers nothing after that: the others were not tried'] as Line] : []),
  ];
}
