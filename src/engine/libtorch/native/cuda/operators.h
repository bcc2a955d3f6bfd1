// The operators that our own kernels (*.cuh) compute. `FOR_EACH_OPERATOR(X)` lists them all, and register.cc registers them for
// CUDA devices.
#pragma once
#include <ATen/ATen.h>

#include <tuple>
#include <vector>

namespace alitok::cuda {

using at::Tensor;
using c10::optional;

// Like the CPU's operators of the same names (pointwise.cc), for float32 and bfloat16. A result has its input's type unless
// `half` asks for bfloat16. Weights of norms and their gradients are float32.
Tensor rms_norm(const Tensor& x, const Tensor& weight, double epsilon, bool half);
std::tuple<Tensor, Tensor> rms_norm_grad(const Tensor& dy, const Tensor& x, const Tensor& weight, double epsilon);
Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double epsilon, bool half);
std::tuple<Tensor, Tensor, Tensor> layer_norm_grad(const Tensor& dy, const Tensor& x, const Tensor& weight, double epsilon);
Tensor rotary(const Tensor& x, const Tensor& cos, const Tensor& sin, bool inverse);
/** rotary(rms_norm(x)) of head vectors x (B, T, H, D) with any strides. The result's layout in memory is (B, H, T, D). */
Tensor norm_rotary(const Tensor& x, const Tensor& weight, const Tensor& cos, const Tensor& sin, double epsilon);
std::tuple<Tensor, Tensor> norm_rotary_grad(const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& cos,
                                            const Tensor& sin, double epsilon);
Tensor swiglu(const Tensor& gate, const Tensor& value);
std::tuple<Tensor, Tensor> swiglu_grad(const Tensor& dy, const Tensor& gate, const Tensor& value);
Tensor dropout(const Tensor& x, double rate, int64_t seed, bool half);
/** Rounds each tensor of a list to bfloat16, with many tensors per launch. */
std::vector<Tensor> round_all(at::TensorList tensors);

/** Copies head vectors x (B, T, H, D) with any strides to a contiguous (B, H, rows, D), with zeros after the T rows. */
Tensor heads_first(const Tensor& x, int64_t rows);

/**
 * Replaces scores (B, H, queries, at least `keys`) = q·kᵀ by the attention weights, in place: softmax(scale·scores), masked,
 * after dropout. Columns after the keys become zero.
 */
void attention_weights(const Tensor& scores, int64_t keys, bool causal, double scale, double rate, int64_t seed);
/** The same; also replaces dp, the gradient with respect to these weights, by the gradient with respect to q·kᵀ, in place. */
void attention_weights_grad(const Tensor& scores, const Tensor& dp, int64_t keys, bool causal, double scale, double rate,
                            int64_t seed);

Tensor generator_step(const Tensor& x, const Tensor& cos, const Tensor& sin, const Tensor& position, at::TensorList caches,
                      at::TensorList norms, at::TensorList weights, const c10::List<optional<Tensor>>& scales,
                      const c10::List<optional<Tensor>>& biases, double epsilon);
void draw_step(const Tensor& logits, const Tensor& uniforms, const optional<Tensor>& scales, const Tensor& position,
               const Tensor& ids, const Tensor& codes, double temperature, int64_t top_k, double top_p);

#define FOR_EACH_OPERATOR(X)                                                                                       \
  X(rms_norm) X(rms_norm_grad) X(layer_norm) X(layer_norm_grad) X(rotary) X(norm_rotary) X(norm_rotary_grad)  \
  X(swiglu) X(swiglu_grad) X(dropout) X(round_all) X(heads_first)                                                  \
  X(attention_weights) X(attention_weights_grad) X(generator_step) X(draw_step)

}  // namespace alitok::cuda
