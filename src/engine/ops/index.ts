/** The fused operations that the models are written in; everything else they use is plain tfjs. */
export { gelu, swiGLU } from './activation.js';
export { attention, cacheWrite, newCache, normRotary, rotary } from './attention.js';
export { checkpointActivations, stopGradient } from './differentiation.js';
export { type DrawOptions, type DrawState, drawCodes, drawStep, hasDrawStep } from './drawing.js';
export { dropout, seedAt } from './dropout.js';
export { frozenConv2d, frozenDepthwiseConv2d, frozenLinear } from './frozen.js';
export {
  generatorStep,
  hasGeneratorStep,
  joinLayers,
  type StepBlock,
  type StepLayer,
} from './generator-step.js';
export { linear, type PackedWeight, packedLinear, packWeight, type WeightKind } from './linear.js';
export { crossEntropy, embedding, nearestCode } from './lookup.js';
export { groupNorm, layerNorm, rmsNorm } from './normalization.js';
export { type AdamWAttributes, type AdamWTensors, adamW, sumOfSquares } from './optimizer.js';
export { type Recording, Replayed } from './replayed.js';
