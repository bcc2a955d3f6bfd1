/** Kernels on tensors' memory. The last two arguments of each: which part of how many to do. */
export { attention, attentionGrad, attentionScratch } from './attention';
export { depthwise, depthwiseGradFilter, depthwiseGradInput, fromColumns, toColumns } from './convolution';
export {
  adamw,
  dropout,
  exponential,
  gelu,
  geluGrad,
  relu,
  reluGrad,
  rotary,
  sigmoid,
  swiglu,
  swigluGrad,
} from './elementwise';
export { copy, sumRows } from './layout';
export {
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
export { maxPoolGrad } from './pooling';
