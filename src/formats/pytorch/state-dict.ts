import { CheckpointError } from '../../errors.js';
import type { PickleValue } from './unpickle.js';
import { Tensor } from './values.js';

/** Where training files keep the model: AliTok's own, then those of other training code. */
const MODEL_KEYS = ['model_state', 'state_dict', 'model'];

/** What wrappers put before every name: DistributedDataParallel, and torch.compile. */
const WRAPPERS = ['module.', '_orig_mod.'];

/** How many keys an error lists. */
const LISTED = 5;

/** The tensors under the names that the model itself gives them: without what wrappers put before all of them. */
function unwrapped(tensors: Map<string, Tensor>): Map<string, Tensor> {
  const names = [...tensors.keys()];
  const wrapper = WRAPPERS.find((prefix) => names.every((name) => name.startsWith(prefix)));
  if (wrapper === undefined || names.length === 0) return tensors;
  return unwrapped(new Map([...tensors].map(([name, tensor]) => [name.slice(wrapper.length), tensor])));
}

function tensorsOf(value: PickleValue | undefined): Map<string, Tensor> {
  const tensors = new Map<string, Tensor>();
  if (!(value instanceof Map)) return tensors;
  for (const [name, tensor] of value)
    if (typeof name === 'string' && tensor instanceof Tensor) tensors.set(name, tensor);
  return tensors;
}

/**
 * The tensors of a model by name: of a plain state dict, or of the model in a training file;
 * without the prefix of a wrapper such as DistributedDataParallel, where all have it.
 * @throws CheckpointError where there are none, with the keys that there are
 */
export function stateDict(path: string, value: PickleValue): Map<string, Tensor> {
  const own = tensorsOf(value);
  if (own.size > 0) return unwrapped(own);
  if (value instanceof Map)
    for (const key of MODEL_KEYS) {
      const tensors = tensorsOf(value.get(key));
      if (tensors.size > 0) return unwrapped(tensors);
    }
  const keys =
    value instanceof Map ? [...value.keys()].slice(0, LISTED).map((key) => String(key).slice(0, 40)) : [];
  const found = keys.length > 0 ? `; it has ${keys.join(', ')}` : '';
  throw new CheckpointError(
    `${path} holds no state dict, at its top or under ${MODEL_KEYS.join(', ')}${found}; save the model's state dict alone`,
  );
}
