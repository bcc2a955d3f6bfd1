/** Kernels on the memory of tensors. The last two arguments of each: the part to compute, and the number of parts. */
export { attention, attentionGrad, attentionScratch } from './attention';
export { depthwise, depthwiseGradFilter, depthwiseGradInput, fromColumns, toColumns } from './convolution';
export {
  adamw,
  clip,
  dropout,
  exponential,
  gelu,
  geluGrad,
  maximum,
  minimum,
  relu,
  reluGrad,
  rotary,
  sigmoid,
  swiglu,
  swigluGrad,
} from './elementwise';
export { copy, sumRows } from './layout';
export {
  argMax,
  crossEntropy,
  crossEntropyGrad,
  embedding,
  embeddingGrad,
  nearest,
  softmax,
  squaredNorms,
} from './lookup';
export { matmul, matmulScratch } from './matmul';
export {
  groupNorm,
  groupNormGrad,
  groupNormGradWeight,
  rowNorm,
  rowNormGrad,
  rowNormGradWeight,
} from './normalization';
export { avgPool, maxPool, maxPoolGrad } from './pooling';
