// The operations of a training step on all parameters at once, on the CPU: the gradient's norm and AdamW. Each is one
// pass over memory, split into chunks of equal work whatever the parameters' sizes.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <numeric>
#include <vector>

#include "simd.h"

namespace alitok {
namespace {

constexpr int64_t CHUNK = 1 << 16;

/** A part of one of several tensors. */
struct Chunk {
  size_t tensor;
  int64_t first, last;
};

std::vector<Chunk> chunks_of(const at::TensorList tensors) {
  std::vector<Chunk> chunks;
  for (size_t i = 0; i < tensors.size(); i++)
    for (int64_t first = 0; first < tensors[i].numel(); first += CHUNK)
      chunks.push_back({i, first, std::min(first + CHUNK, tensors[i].numel())});
  return chunks;
}

VECTORIZED float squares(const float* x, int64_t first, int64_t last) {
  float sum = 0;
  for (int64_t i = first; i < last; i++) sum += x[i] * x[i];
  return sum;
}

/** Σ x² over all elements of all tensors; the same for any number of threads. */
Tensor sum_of_squares(const at::TensorList tensors) {
  std::vector<Tensor> inputs;
  for (const Tensor& tensor : tensors) inputs.push_back(dense(tensor));
  const auto chunks = chunks_of(inputs);
  std::vector<double> sums(chunks.size());
  at::parallel_for(0, chunks.size(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; c++) sums[c] = squares(in(inputs[chunks[c].tensor]), chunks[c].first, chunks[c].last);
  });
  return at::scalar_tensor(std::accumulate(sums.begin(), sums.end(), 0.0), at::kFloat);
}

VECTORIZED void adamw_range(float* p, const float* g, float* m, float* v, const float* f, int64_t first, int64_t last) {
  const float scale = f[0], beta1 = f[1], beta2 = f[2], epsilon = f[3], keep = f[4], rate = f[5], root = f[6];
  for (int64_t i = first; i < last; i++) {
    const float gradient = g[i] * scale;
    m[i] = m[i] * beta1 + gradient * (1 - beta1);
    v[i] = v[i] * beta2 + gradient * gradient * (1 - beta2);
    p[i] = p[i] * keep - rate * m[i] / (std::sqrt(v[i]) * root + epsilon);
  }
}

/**
 * One step in place. factors: the scale of the gradient, β₁, β₂, ε, 1 − lr·decay, lr/(1 − β₁ᵗ), 1/√(1 − β₂ᵗ).
 */
void adamw(const at::TensorList parameters, const at::TensorList gradients, const at::TensorList m,
           const at::TensorList v, at::ArrayRef<double> factors) {
  std::vector<Tensor> inputs;
  for (size_t i = 0; i < parameters.size(); i++) {
    for (const Tensor& tensor : {parameters[i], m[i], v[i]})
      TORCH_CHECK(tensor.is_contiguous() && tensor.scalar_type() == at::kFloat && tensor.numel() == gradients[i].numel(),
                  "parameter ", i, " and its moments are to be contiguous, of one size, and float32");
    inputs.push_back(dense(gradients[i]));
  }
  float f[7];
  for (int i = 0; i < 7; i++) f[i] = static_cast<float>(factors[i]);
  const auto chunks = chunks_of(inputs);
  at::parallel_for(0, chunks.size(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; c++) {
      const auto [i, first, last] = chunks[c];
      adamw_range(out(parameters[i]), in(inputs[i]), out(m[i]), out(v[i]), f, first, last);
    }
  });
}

TORCH_LIBRARY_FRAGMENT(alitok, library) {
  library.def("sum_of_squares(Tensor[] tensors) -> Tensor", sum_of_squares);
  library.def(
      "adamw(Tensor(a!)[] parameters, Tensor[] gradients, Tensor(b!)[] m, Tensor(c!)[] v, float[] factors) -> ()", adamw);
}

}  // namespace
}  // namespace alitok
