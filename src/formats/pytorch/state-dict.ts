import { CheckpointError } from '../../errors.js';
import type { WeightsChoice } from '../tensor-file.js';
import type { PickleValue } from './unpickle.js';
import { Tensor } from './values.js';

/** Keys under which training files have the model: AliTok's own, then those of other training code. */
const MODEL_KEYS = ['model_state', 'state_dict', 'model'];

/** Prefixes of wrappers: DistributedDataParallel or AveragedModel, and torch.compile. */
const WRAPPERS = ['module.', '_orig_mod.'];

/** AveragedModel's count of averaged models, beside its tensors. */
const COUNT = 'n_averaged';

/** Number of keys that an error lists. */
const LISTED = 5;

/** The tensors under the model's own names: without a wrapper's prefix, if all have it. */
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

/** The sets of weights in a training file by key. The optimizer's tensors are nested deeper and not included. */
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
 * The tensors of a model by name: a plain state dict, or in a training file the model or the weights under `key`. The prefix
 * of a wrapper such as DistributedDataParallel is removed if all names have it. If a training file has several sets of
 * weights and no key is given, `choice` says which one was chosen.
 * @throws CheckpointError if there are none; the message lists the keys
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
    `${path} has no state dict, at its top or under ${MODEL_KEYS.join(', ')}${found}; save only the model's state dict`,
  );
}

/** The first keys, shortened. */
function listed(keys: readonly string[]): string {
  return keys
    .slice(0, LISTED)
    .map((key) => key.slice(0, 40))
    .join(', ');
}
