import { CheckpointError } from '../../errors.js';
import type { WeightsChoice } from '../tensor-file.js';
import type { PickleValue } from './unpickle.js';
import { Tensor } from './values.js';

/** Where training files keep the model: AliTok's own, then those of other training code. */
const MODEL_KEYS = ['model_state', 'state_dict', 'model'];

/** What wrappers put before every name: DistributedDataParallel or AveragedModel, and torch.compile. */
const WRAPPERS = ['module.', '_orig_mod.'];

/** Beside the tensors of an AveragedModel: of how many it is the average. */
const COUNT = 'n_averaged';

/** How many keys an error lists. */
const LISTED = 5;

/** The tensors under the names that the model itself gives them: without what wrappers put before all of them. */
function unwrapped(tensors: Map<string, Tensor>): Map<string, Tensor> {
  const names = [...tensors.keys()].filter((name) => name !== COUNT);
  const wrapper = WRAPPERS.find((prefix) => names.every((name) => name.startsWith(prefix)));
  if (wrapper === undefined || names.length === 0) return tensors;
  return unwrapped(new Map(names.map((name) => [name.slice(wrapper.length), tensors.get(name)!])));
}

function tensorsOf(value: PickleValue | undefined): Map<string, Tensor> {
  const tensors = new Map<string, Tensor>();
  if (!(value instanceof Map)) return tensors;
  for (const [name, tensor] of value)
    if (typeof name === 'string' && tensor instanceof Tensor) tensors.set(name, tensor);
  return tensors;
}

/** The sets of weights in a training file, by their keys; those of the optimizer lie deeper, and are none. */
function weightsOf(value: PickleValue): Map<string, Map<string, Tensor>> {
  const found = new Map<string, Map<string, Tensor>>();
  if (value instanceof Map)
    for (const [key, part] of value) {
      const tensors = tensorsOf(part);
      if (typeof key === 'string' && tensors.size > 0) found.set(key, tensors);
    }
  return found;
}

/**
 * The tensors of a model by name: of a plain state dict, or of a training file's model or what it has under `key`;
 * without the prefix of a wrapper such as DistributedDataParallel, where all have it. Where a training file has several
 * sets of weights and no key is given, `choice` says which is taken.
 * @throws CheckpointError where there are none, with the keys that there are
 */
export function stateDict(
  path: string,
  value: PickleValue,
  key?: string,
): { tensors: Map<string, Tensor>; choice?: WeightsChoice } {
  const weights = weightsOf(value);
  const keys = [...weights.keys()];
  const taken = key ?? MODEL_KEYS.find((one) => weights.has(one));
  if (taken !== undefined && weights.has(taken)) {
    const choice = { taken, others: keys.filter((one) => one !== taken) };
    const several = key === undefined && choice.others.length > 0;
    return { tensors: unwrapped(weights.get(taken)!), ...(several && { choice }) };
  }
  if (key !== undefined)
    throw new CheckpointError(
      keys.length > 0
        ? `${path} has no weights under ${key}; it has them under ${listed(keys)}`
        : `${path} has one set of weights; leave out #${key}`,
    );
  const own = tensorsOf(value);
  if (own.size > 0) return { tensors: unwrapped(own) };
  if (keys.length > 0)
    throw new CheckpointError(
      `${path} has weights under ${listed(keys)}, none of which is known to be the model's (${MODEL_KEYS.join(', ')}); name them, as in ${path}#${keys[0]}`,
    );
  const found =
    value instanceof Map && value.size > 0 ? `; it has ${listed([...value.keys()].map(String))}` : '';
  throw new CheckpointError(
    `${path} holds no state dict, at its top or under ${MODEL_KEYS.join(', ')}${found}; save the model's state dict alone`,
  );
}

/** The first of many keys, which may be long. */
function listed(keys: readonly string[]): string {
  return keys
    .slice(0, LISTED)
    .map((key) => key.slice(0, 40))
    .join(', ');
}
