// Normalisation, rotation, SwiGLU and dropout on the CPU, each in one pass over memory.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include "hash.h"
#include "rows.h"
#include "simd.h"

namespace alitok {
namespace {

// RMSNorm

}  // namespace

VECTORIZED void rms_rows(const float* x, const float* w, float* y, int64_t d, float epsilon, int64_t first,
                         int64_t last) {
  for (int64_t row = first; row < last; row++) {
    const float* from = x + row * d;
    float squares = 0;
    for (int64_t i = 0; i < d; i++) squares += from[i] * from[i];
    const float scale = 1 / std::sqrt(squares / d + epsilon);
    for (int64_t i = 0; i < d; i++) y[row * d + i] = IN_ORDER(from[i] * scale) * w[i];
  }
}

namespace {

/** The error for `half`, a result in bfloat16, which only other devices support. */
constexpr const char* FLOAT32_ONLY = "results of the CPU are float32";

Tensor rms_norm(const Tensor& x_, const Tensor& weight_, double epsilon, bool half) {
  TORCH_CHECK(!half, FLOAT32_ONLY);
  const Tensor x = dense(x_), weight = dense(weight_);
  const int64_t d = weight.numel();
  Tensor y = at::empty(x.sizes(), x.options());
  at::parallel_for(0, x.numel() / d, std::max<int64_t>(1, GRAIN / d), [&](int64_t first, int64_t last) {
    rms_rows(in(x), in(weight), out(y), d, epsilon, first, last);
  });
  return y;
}

VECTORIZED void rms_grad_rows(const float* dy, const float* x, const float* w, float* dx, float* dw, int64_t d,
                              float epsilon, int64_t first, int64_t last) {
  for (int64_t row = first; row < last; row++) {
    const float *from = x + row * d, *g = dy + row * d;
    float squares = 0, along = 0;
    for (int64_t i = 0; i < d; i++) {
      squares += from[i] * from[i];
      along += g[i] * w[i] * from[i];
    }
    const float scale = 1 / std::sqrt(squares / d + epsilon);
    const float factor = along * scale * scale / d;
    for (int64_t i = 0; i < d; i++) {
      dx[row * d + i] = (g[i] * w[i] - from[i] * factor) * scale;
      dw[i] += g[i] * from[i] * scale;
    }
  }
}

std::tuple<Tensor, Tensor> rms_norm_grad(const Tensor& dy_, const Tensor& x_, const Tensor& weight_, double epsilon) {
  const Tensor dy = dense(dy_), x = dense(x_), weight = dense(weight_);
  const int64_t d = weight.numel(), rows = x.numel() / d;
  Tensor dx = at::empty(x.sizes(), x.options());
  // A sum for each part, added up in order: the result depends on the number of threads, but not on their timing.
  const int64_t parts = std::max<int64_t>(1, std::min<int64_t>(at::get_num_threads(), rows * d / GRAIN));
  Tensor sums = at::zeros({parts, d}, x.options());
  at::parallel_for(0, parts, 1, [&](int64_t first, int64_t last) {
    for (int64_t part = first; part < last; part++)
      rms_grad_rows(in(dy), in(x), in(weight), out(dx), out(sums) + part * d, d, epsilon, rows * part / parts,
                    rows * (part + 1) / parts);
  });
  return {dx, sums.sum(0)};
}

// Rotary embedding of adjacent pairs: x (B, T, H, D), cos and sin (T, D/2)

}  // namespace

VECTORIZED void rotate(const float* x, const float* c, const float* s, float* y, int64_t pairs, float sign) {
  for (int64_t j = 0; j < pairs; j++) {
    const float even = x[2 * j], odd = x[2 * j + 1], sine = sign * s[j];
    y[2 * j] = even * c[j] - odd * sine;
    y[2 * j + 1] = odd * c[j] + even * sine;
  }
}

namespace {

Tensor rotary(const Tensor& x_, const Tensor& cos_, const Tensor& sin_, bool inverse) {
  const Tensor x = dense(x_), cos = dense(cos_), sin = dense(sin_);
  const int64_t tokens = x.size(1), heads = x.size(2), d = x.size(3);
  Tensor y = at::empty(x.sizes(), x.options());
  at::parallel_for(0, x.size(0) * tokens, std::max<int64_t>(1, GRAIN / (heads * d)), [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; row++) {
      const int64_t at = (row % tokens) * (d / 2);
      for (int64_t h = 0; h < heads; h++)
        rotate(in(x) + (row * heads + h) * d, in(cos) + at, in(sin) + at, out(y) + (row * heads + h) * d, d / 2,
               inverse ? -1 : 1);
    }
  });
  return y;
}

// SwiGLU: silu(gate)·value

}  // namespace

VECTORIZED void swiglu_range(const float* gate, const float* value, float* y, int64_t first, int64_t last) {
  for (int64_t i = first; i < last; i++) y[i] = gate[i] / (1 + exponential(-gate[i])) * value[i];
}

namespace {

Tensor swiglu(const Tensor& gate_, const Tensor& value_) {
  const Tensor gate = dense(gate_), value = dense(value_);
  Tensor y = at::empty(gate.sizes(), gate.options());
  at::parallel_for(0, gate.numel(), GRAIN / 8, [&](int64_t first, int64_t last) {
    swiglu_range(in(gate), in(value), out(y), first, last);
  });
  return y;
}

VECTORIZED void swiglu_grad_range(const float* dy, const float* gate, const float* value, float* dgate, float* dvalue,
                                  int64_t first, int64_t last) {
  for (int64_t i = first; i < last; i++) {
    const float sigmoid = 1 / (1 + exponential(-gate[i]));
    const float silu = gate[i] * sigmoid;
    dgate[i] = dy[i] * value[i] * (sigmoid + silu * (1 - sigmoid));
    dvalue[i] = dy[i] * silu;
  }
}

std::tuple<Tensor, Tensor> swiglu_grad(const Tensor& dy_, const Tensor& gate_, const Tensor& value_) {
  const Tensor dy = dense(dy_), gate = dense(gate_), value = dense(value_);
  Tensor dgate = at::empty(gate.sizes(), gate.options()), dvalue = at::empty(gate.sizes(), gate.options());
  at::parallel_for(0, gate.numel(), GRAIN / 8, [&](int64_t first, int64_t last) {
    swiglu_grad_range(in(dy), in(gate), in(value), out(dgate), out(dvalue), first, last);
  });
  return {dgate, dvalue};
}

// Dropout by the hash of index and seed that all engines share; dropped elements are multiplied by 0, which keeps NaN

VECTORIZED void dropout_range(const float* x, float* y, uint32_t threshold, float scale, uint32_t seed, int64_t first,
                              int64_t last) {
  for (int64_t i = first; i < last; i++)
    y[i] = x[i] * (hash(static_cast<uint32_t>(i), seed) >= threshold ? scale : 0);
}

Tensor dropout(const Tensor& x_, double rate, int64_t seed, bool half) {
  TORCH_CHECK(!half, FLOAT32_ONLY);
  const Tensor x = dense(x_);
  Tensor y = at::empty(x.sizes(), x.options());
  const auto threshold = static_cast<uint32_t>(rate * 4294967296.0);
  const auto scale = static_cast<float>(1 / (1 - rate));
  at::parallel_for(0, x.numel(), GRAIN, [&](int64_t first, int64_t last) {
    dropout_range(in(x), out(y), threshold, scale, static_cast<uint32_t>(seed), first, last);
  });
  return y;
}

TORCH_LIBRARY_FRAGMENT(alitok, library) {
  library.def("rms_norm(Tensor x, Tensor weight, float epsilon, bool half=False) -> Tensor", rms_norm);
  library.def("rms_norm_grad(Tensor dy, Tensor x, Tensor weight, float epsilon) -> (Tensor, Tensor)", rms_norm_grad);
  library.def("rotary(Tensor x, Tensor cos, Tensor sin, bool inverse) -> Tensor", rotary);
  library.def("swiglu(Tensor gate, Tensor value) -> Tensor", swiglu);
  library.def("swiglu_grad(Tensor dy, Tensor gate, Tensor value) -> (Tensor, Tensor)", swiglu_grad);
  library.def("dropout(Tensor x, float rate, int seed, bool half=False) -> Tensor", dropout);
}

}  // namespace
}  // namespace alitok
