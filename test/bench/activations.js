// Memory of one forward and backward pass of AR-B, with or without activation checkpointing: the memory of all tensors after
// the forward pass, and the peak memory of the process. Weights are constants, and there is no optimizer.
//
//   node test/bench/activations.js true|false [BATCH]
import * as tf from '@tensorflow/tfjs';
import { loadConfig } from '../../dist/config/load.js';
import { openEngine } from '../../dist/engine/index.js';
import { Generator } from '../../dist/models/generator/generator.js';
import { tokenizerGeometry } from '../../dist/models/geometry.js';
import { sumGradients } from '../../dist/train/step/gradients.js';

const checkpointActivations = process.argv[2] === 'true';
const batch = Number(process.argv[3] ?? 4);
await openEngine('libtorch');
const { generator: sizes, tokenizer } = loadConfig(
  new URL('../../configs/alitok_b.yaml', import.meta.url).pathname,
);
const { prefix_tokens, grid, tokens } = tokenizerGeometry(tokenizer);
const { codebook_size } = tokenizer;
const generator = new Generator({ ...sizes, codebook_size, prefix_tokens, grid });
for (const p of generator.parameters) p.value = tf.fill(p.shape, p.shape.length === 1 ? 1 : 0.001);
const codes = tf.keep(tf.zeros([batch, tokens], 'int32'));
const conditions = tf.keep(tf.fill([batch], codebook_size + 1, 'int32'));

const before = process.cpuUsage();
let held = 0;
await sumGradients([...generator.parameters], 1, () => {
  const logits = generator.forward(conditions, codes, { checkpointActivations });
  held = tf.memory().numBytes;
  return { loss: generator.loss(logits, codes) };
});
const gib = (bytes) => `${(bytes / 2 ** 30).toFixed(2)} GiB`;
console.log(`AR-B, batch ${batch}, activations ${checkpointActivations ? 'computed again' : 'kept'}`);
console.log(`tensors after the forward pass  ${gib(held)}`);
console.log(`peak of the process             ${gib(process.resourceUsage().maxRSS * 1024)}`);
console.log(`processor time                  ${(process.cpuUsage(before).user / 1e6).toFixed(1)} s`);
