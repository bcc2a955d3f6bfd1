import { backend_util } from '@tensorflow/tfjs';
import { registerHost } from '../../host/kernels.js';
import { listOf, text } from '../backend.js';
import { registerConvolution } from './convolution.js';
import { registerElementwise } from './elementwise.js';
import { register } from './register.js';
import { registerSelection } from './selection.js';

/**
 * Registers kernels for operations of tfjs: our own where tfjs-node's differ from the other engines' or are slow, and tfjs's
 * JavaScript kernels where there is none.
 */
export function registerTfjs(): void {
  registerElementwise();
  registerSelection();
  registerConvolution();
  // TensorFlow computes something for an output that no input has.
  register<{ equation: string }>('Einsum', (inputs, { equation }, { handle, use, out }) => {
    const tensors = Object.values(inputs).map(handle);
    backend_util.decodeEinsumEquation(equation, tensors.length);
    const list = listOf(tensors.length, tensors[0].dtype);
    return out(use('Einsum', tensors, [...list, text('equation', equation)]));
  });
  registerHost('tensorflow');
}
