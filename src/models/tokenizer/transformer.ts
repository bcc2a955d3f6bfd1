import * as tf from '@tensorflow/tfjs';
import * as ops from '../../engine/ops/index.js';
import type { Initializer } from '../../nn/initializers.js';
import { type Layer, layerNorm, linear, sequence } from '../../nn/layers.js';
import type { Scope } from '../../nn/parameters.js';
import type { TransformerSize } from '../geometry.js';

/** Multi-head self-attention: (B, T, width) → (B, T, width). */
function attention(
  scope: Scope,
  { width, heads }: TransformerSize,
  causal: boolean,
  init: Initializer,
): Layer {
  const inProj = linear(scope.at('in_proj'), width, 3 * width, { init });
  const outProj = linear(scope.at('out_proj'), width, width, { init });
  return (x) => {
    const [batch, tokens] = x.shape;
    const qkv = inProj(x).reshape([batch, tokens, 3, heads, width / heads]); // (B, T, K H D)
    const [q, k, v] = tf.unstack(qkv, 2) as tf.Tensor4D[]; // (B, T, H, D) each
    return outProj(ops.attention(q, k, v, { causal }).reshape([batch, tokens, width]));
  };
}

/** Linear to four times the width, exact GELU, linear back. */
function mlp(scope: Scope, width: number, init: Initializer): Layer {
  const fc = linear(scope.at('c_fc'), width, 4 * width, { init });
  const proj = linear(scope.at('c_proj'), 4 * width, width, { init });
  return (x) => proj(ops.gelu(fc(x)));
}

/**
 * The pre-norm transformer of encoder and decoders: x += attn(ln_1(x)); x += mlp(ln_2(x)), `layers` times.
 * (B, T, width) → (B, T, width); with `causal`, position i depends on positions 0..i only. `init` initializes weights.
 * With `checkpointActivations`, the backward pass computes each block again instead of keeping its activations.
 */
export function transformer(
  scope: Scope,
  size: TransformerSize,
  {
    causal,
    init,
    checkpointActivations = false,
  }: { causal: boolean; init: Initializer; checkpointActivations?: boolean },
): Layer {
  const { width, layers } = size;
  const blocks = Array.from({ length: layers }, (_, i) => {
    const block = scope.at(i);
    const ln1 = layerNorm(block.at('ln_1'), width, { rounds: true });
    const attn = attention(block.at('attn'), size, causal, init);
    const ln2 = layerNorm(block.at('ln_2'), width, { rounds: true });
    const ff = mlp(block.at('mlp'), width, init);
    const run = (x: tf.Tensor) => {
      const h = x.add(attn(ln1(x)));
      return h.add(ff(ln2(h)));
    };
    const values = () => block.trained.map((p) => p.value);
    return checkpointActivations ? (x: tf.Tensor) => ops.checkpointActivations(run, x, values()) : run;
  });
  return sequence(...blocks);
}
