import * as tf from '@tensorflow/tfjs';
import { expect, it } from 'vitest';
import { rotaryTable } from '../../src/models/generator/rotary-table.js';
import { guidanceScale, sampleCodes } from '../../src/sample/sampler.js';
import { describeEngines } from '../support/engines.js';
import { openGenerator } from './generator.js';
import { expectClose } from './golden.js';

describeEngines('generator goldens', () => {
  it('rotary table', async () => {
    const { golden, generator } = await openGenerator();
    const { cos, sin } = rotaryTable(generator.geometry);
    expectClose('freqs_cis', tf.stack([cos, sin], -1), golden.values('freqs_cis'), 1e-6);
  });

  it('logits, loss, accuracy, gradients and their norm', async () => {
    const { golden, generator, condition, codes } = await openGenerator();
    const trained = [...generator.parameters];
    const grads = tf.grads(() => {
      const logits = generator.forward(condition, codes);
      const loss = generator.loss(logits, codes);
      expectClose('logits', logits, golden.values('logits'));
      expectClose('loss', loss, [golden.scalar('loss')]);
      const predicted = logits.slice([0, 0, 0], [-1, codes.shape[1], -1]).argMax(-1);
      expectClose('accuracy', predicted.equal(codes).toFloat().mean(), [golden.scalar('accuracy')]);
      return loss;
    })(trained.map((p) => p.value));
    let squares = 0;
    trained.forEach((p, i) => {
      expectClose(p.name, grads[i], golden.values(`grad.${p.name}`), 1e-3);
      squares += grads[i].square().sum().dataSync()[0];
    });
    expectClose('grad_norm', Math.sqrt(squares), [golden.scalar('grad_norm')], 1e-3);
  });

  it('steps with the cache give the same logits as the full pass', async () => {
    const { golden, generator, condition, codes } = await openGenerator();
    const [batch, tokens] = codes.shape;
    const cache = generator.createCache(batch);
    const expected = golden.tensor('logits');
    for (let i = 0; i < tokens; i++) {
      const ids = i === 0 ? condition : (codes.slice([0, i - 1], [-1, 1]).squeeze([1]) as tf.Tensor1D);
      const at = expected.slice([0, i, 0], [-1, 1, -1]).dataSync();
      expectClose(`logits at ${i}`, generator.step(ids, cache), at);
    }
    cache.dispose();
  });

  it('guidance scale at every step', async () => {
    const { golden, guidance, generator } = await openGenerator();
    const { tokens } = generator.geometry;
    const scales = Array.from({ length: tokens }, (_, i) => guidanceScale(i, tokens, guidance));
    const expected = golden.values('cfg_scale');
    scales.forEach((scale, i) => {
      expect(scale).toBeCloseTo(expected[i], 5);
    });
  });

  it('greedy ids with and without guidance', async () => {
    const { golden, generator, guidance } = await openGenerator();
    const classes = golden.integers('greedy.classes');
    const greedy = { temperature: 0, top_k: 0, top_p: 1 };
    const guided = await sampleCodes(generator, classes, { ...greedy, guidance });
    expect([...guided.dataSync()]).toEqual(golden.integers('greedy.ids'));
    const free = await sampleCodes(generator, classes, { ...greedy, guidance: { scale: 0, power: 1 } });
    expect([...free.dataSync()]).toEqual(golden.integers('greedy_nocfg.ids'));
  });
});
