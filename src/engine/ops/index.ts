/** The fused operations that the models are written in; everything else they use is plain tfjs. */
export { gelu, swiGLU } from './activation.js';
export { type AdamWAttributes, type AdamWTensors, adamW, adamWLists } from './adamw.js';
export { attention, cacheWrite, newCache, normRotary, rotary } from './attention.js';
export { checkpointActivations } from './checkpoint-activations.js';
export { type DrawOptions, drawCodes } from './draw-codes.js';
export { type DrawState, drawStep, hasDrawStep } from './draw-step.js';
export { dropout, seedAt } from './dropout.js';
export { frozenConv2d, frozenDepthwiseConv2d, frozenLinear } from './frozen.js';
export {
  generatorStep,
  hasGeneratorStep,
  joinLayers,
  type StepBlock,
  type StepLayer,
} from './generator-step.js';
export { linear } from './linear.js';
export { crossEntropy, embedding, nearestCode } from './lookup.js';
export { groupNorm, layerNorm, rmsNorm } from './normalization.js';
export {
  type PackedWeight,
  packedLinear,
  packWeight,
  type WeightKind,
} from './packed-linear.js';
export { type Recording, Replayed } from './replayed.js';
export { stopGradient } from './stop-gradient.js';
export { sumOfSquares } from './sum-of-squares.js';
