import * as tf from '@tensorflow/tfjs';
import { it } from 'vitest';
import { Discriminator } from '../../src/models/tokenizer/discriminator.js';
import { adversarialLoss, hingeLoss } from '../../src/models/tokenizer/losses.js';
import { describeEngines } from '../support/engines.js';
import { expectClose, expectCloseGradient, NCHW_TO_NHWC, NHWC_TO_NCHW, openGolden } from './golden.js';

describeEngines('discriminator goldens', () => {
  it('logits, hinge loss with gradients, generator loss with its gradient by the image', async () => {
    const golden = await openGolden('discriminator');
    const discriminator = new Discriminator({
      hidden_channels: Number(golden.metadata.hidden_channels),
      stages: Number(golden.metadata.num_stages),
    });
    await golden.load(discriminator.parameters);
    const image = (name: string) => golden.tensor(`64.${name}`).transpose(NCHW_TO_NHWC) as tf.Tensor4D;
    const [real, fake] = [image('real'), image('fake')];
    const logits = (x: tf.Tensor4D) => discriminator.forward(x).transpose(NHWC_TO_NCHW);
    expectClose('logits_real', logits(real), golden.values('64.logits_real'));
    expectClose('logits_fake', logits(fake), golden.values('64.logits_fake'));

    const trained = [...discriminator.parameters].filter((p) => !p.buffer);
    const hinge = () => hingeLoss(discriminator.forward(real), discriminator.forward(fake));
    const { value, grads } = tf.valueAndGrads(() => hinge())(trained.map((p) => p.value));
    expectClose('d_loss', value, [golden.scalar('64.d_loss')]);
    trained.forEach((p, i) => {
      expectClose(p.name, grads[i], golden.values(`64.grad.${p.name}`), 1e-3);
    });

    const adversarial = (x: tf.Tensor) => adversarialLoss(discriminator.forward(x as tf.Tensor4D));
    expectClose('g_loss', adversarial(fake), [golden.scalar('64.g_loss')]);
    const byImage = tf.grad(adversarial)(fake).transpose(NHWC_TO_NCHW);
    expectCloseGradient('grad_fake', byImage, golden.values('64.grad_fake'));
  });
});
