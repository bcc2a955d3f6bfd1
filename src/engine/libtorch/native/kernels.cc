// CPU kernels of the op vocabulary where PyTorch has none, or several that go over memory more often than needed. They
// register as operators of their own (alitok::…), so that JavaScript calls them as it calls any other. float32,
// contiguous, on the CPU: `engine/libtorch/kernels` sees to that and composes ATen operators elsewhere.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstring>

// One function for each instruction set, chosen when the library is loaded.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define VECTORIZED __attribute__((target_clones("avx512f", "avx2,fma", "default"), optimize("O3,fast-math")))
#else
#define VECTORIZED
#endif

namespace {

using at::Tensor;

/** Work of a thread below which another one does not pay, in elements. */
constexpr int64_t GRAIN = 1 << 14;

/** The elements of a tensor that `dense` has seen. */
const float* in(const Tensor& tensor) { return tensor.data_ptr<float>(); }
float* out(Tensor& tensor) { return tensor.data_ptr<float>(); }

Tensor dense(const Tensor& tensor) {
  TORCH_CHECK(tensor.scalar_type() == at::kFloat && tensor.is_cpu(), "a float32 tensor on the CPU is expected");
  return tensor.contiguous();
}

// y = x·Wᵀ + b for few rows of x: the decoding step. Time is what reading W takes, so each row of W is read once and
// meets all rows of x.

VECTORIZED void few_rows(const float* x, const float* w, const float* bias, float* y, int64_t rows, int64_t n,
                         int64_t outputs, int64_t first, int64_t last) {
  for (int64_t o = first; o < last; o++) {
    const float offset = bias ? bias[o] : 0;
    const float* row = w + o * n;
    int64_t r = 0;
    for (; r + 4 <= rows; r += 4) {
      float s0 = 0, s1 = 0, s2 = 0, s3 = 0;
      const float *x0 = x + r * n, *x1 = x0 + n, *x2 = x1 + n, *x3 = x2 + n;
      for (int64_t i = 0; i < n; i++) {
        const float f = row[i];
        s0 += x0[i] * f;
        s1 += x1[i] * f;
        s2 += x2[i] * f;
        s3 += x3[i] * f;
      }
      y[r * outputs + o] = s0 + offset;
      y[(r + 1) * outputs + o] = s1 + offset;
      y[(r + 2) * outputs + o] = s2 + offset;
      y[(r + 3) * outputs + o] = s3 + offset;
    }
    for (; r + 2 <= rows; r += 2) {
      float s0 = 0, s1 = 0;
      const float *x0 = x + r * n, *x1 = x0 + n;
      for (int64_t i = 0; i < n; i++) {
        s0 += x0[i] * row[i];
        s1 += x1[i] * row[i];
      }
      y[r * outputs + o] = s0 + offset;
      y[(r + 1) * outputs + o] = s1 + offset;
    }
    for (; r < rows; r++) {
      float sum = 0;
      for (int64_t i = 0; i < n; i++) sum += x[r * n + i] * row[i];
      y[r * outputs + o] = sum + offset;
    }
  }
}

Tensor linear_few(const Tensor& x_, const Tensor& weight_, const c10::optional<Tensor>& bias) {
  const Tensor x = dense(x_), weight = dense(weight_);
  const int64_t n = weight.size(1), outputs = weight.size(0), rows = x.numel() / n;
  auto shape = x.sizes().vec();
  shape.back() = outputs;
  Tensor y = at::empty(shape, x.options());
  const float* offset = bias.has_value() && bias->defined() ? in(*bias) : nullptr;
  at::parallel_for(0, outputs, std::max<int64_t>(1, GRAIN / n), [&](int64_t first, int64_t last) {
    few_rows(in(x), in(weight), offset, out(y), rows, n, outputs, first, last);
  });
  return y;
}

// RMSNorm

VECTORIZED void rms_rows(const float* x, const float* w, float* y, int64_t d, float epsilon, int64_t first,
                         int64_t last) {
  for (int64_t row = first; row < last; row++) {
    const float* from = x + row * d;
    float squares = 0;
    for (int64_t i = 0; i < d; i++) squares += from[i] * from[i];
    const float scale = 1 / std::sqrt(squares / d + epsilon);
    for (int64_t i = 0; i < d; i++) y[row * d + i] = from[i] * scale * w[i];
  }
}

Tensor rms_norm(const Tensor& x_, const Tensor& weight_, double epsilon) {
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

VECTORIZED void rotate(const float* x, const float* c, const float* s, float* y, int64_t pairs, float sign) {
  for (int64_t j = 0; j < pairs; j++) {
    const float even = x[2 * j], odd = x[2 * j + 1], sine = sign * s[j];
    y[2 * j] = even * c[j] - odd * sine;
    y[2 * j + 1] = odd * c[j] + even * sine;
  }
}

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

// Attention of one query a sequence over the first `length` rows of the caches: q (B, 1, H, D), k and v (B, Tmax, H, D)

VECTORIZED void attend(const float* q, const float* k, const float* v, float* y, float* scores, int64_t length,
                       int64_t stride, int64_t d, float scale) {
  float largest = -3e38f; // not infinity, which fast arithmetic does not know
  for (int64_t t = 0; t < length; t++) {
    const float* key = k + t * stride;
    float sum = 0;
    for (int64_t i = 0; i < d; i++) sum += q[i] * key[i];
    scores[t] = sum * scale;
    largest = std::max(largest, scores[t]);
  }
  float total = 0;
  for (int64_t t = 0; t < length; t++) {
    scores[t] = std::exp(scores[t] - largest);
    total += scores[t];
  }
  for (int64_t i = 0; i < d; i++) y[i] = 0;
  for (int64_t t = 0; t < length; t++) {
    const float weight = scores[t] / total;
    const float* value = v + t * stride;
    for (int64_t i = 0; i < d; i++) y[i] += weight * value[i];
  }
}

Tensor attention_step(const Tensor& q_, const Tensor& k_, const Tensor& v_, int64_t length) {
  const Tensor q = dense(q_), k = dense(k_), v = dense(v_);
  const int64_t heads = q.size(2), d = q.size(3), longest = k.size(1);
  Tensor y = at::empty(q.sizes(), q.options());
  const int64_t grain = std::max<int64_t>(1, GRAIN / (length * d));
  at::parallel_for(0, q.size(0) * heads, grain, [&](int64_t first, int64_t last) {
    std::vector<float> scores(length);
    for (int64_t at = first; at < last; at++) {
      const int64_t cache = (at / heads) * longest * heads * d + (at % heads) * d;
      attend(in(q) + at * d, in(k) + cache, in(v) + cache, out(y) + at * d, scores.data(), length, heads * d, d,
             1 / std::sqrt(static_cast<float>(d)));
    }
  });
  return y;
}

// SwiGLU: silu(gate)·value

VECTORIZED void swiglu_range(const float* gate, const float* value, float* y, int64_t first, int64_t last) {
  for (int64_t i = first; i < last; i++) y[i] = gate[i] / (1 + std::exp(-gate[i])) * value[i];
}

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
    const float sigmoid = 1 / (1 + std::exp(-gate[i]));
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

// Dropout by the hash of element and seed that all engines share

inline uint32_t hash(uint32_t index, uint32_t seed) {
  uint32_t h = index + seed * 0x9e3779b1u;
  h = (h ^ (h >> 16)) * 0x85ebca6bu;
  h = (h ^ (h >> 13)) * 0xc2b2ae35u;
  return h ^ (h >> 16);
}

VECTORIZED void dropout_range(const float* x, float* y, uint32_t threshold, float scale, uint32_t seed, int64_t first,
                              int64_t last) {
  for (int64_t i = first; i < last; i++)
    y[i] = hash(static_cast<uint32_t>(i), seed) >= threshold ? x[i] * scale : 0;
}

Tensor dropout(const Tensor& x_, double rate, int64_t seed) {
  const Tensor x = dense(x_);
  Tensor y = at::empty(x.sizes(), x.options());
  const auto threshold = static_cast<uint32_t>(rate * 4294967296.0);
  const auto scale = static_cast<float>(1 / (1 - rate));
  at::parallel_for(0, x.numel(), GRAIN, [&](int64_t first, int64_t last) {
    dropout_range(in(x), out(y), threshold, scale, static_cast<uint32_t>(seed), first, last);
  });
  return y;
}

// AdamW in one pass over memory

VECTORIZED void adamw_range(const float* p, const float* g, const float* m, const float* v, float* pn, float* mn,
                            float* vn, const float* f, int64_t first, int64_t last) {
  const float scale = f[0], beta1 = f[1], beta2 = f[2], epsilon = f[3], keep = f[4], rate = f[5], root = f[6];
  for (int64_t i = first; i < last; i++) {
    const float gradient = g[i] * scale;
    const float m1 = m[i] * beta1 + gradient * (1 - beta1);
    const float v1 = v[i] * beta2 + gradient * gradient * (1 - beta2);
    mn[i] = m1;
    vn[i] = v1;
    pn[i] = p[i] * keep - rate * m1 / (std::sqrt(v1) * root + epsilon);
  }
}

std::tuple<Tensor, Tensor, Tensor> adamw(const Tensor& parameter_, const Tensor& gradient_, const Tensor& m_,
                                         const Tensor& v_, at::ArrayRef<double> factors) {
  const Tensor parameter = dense(parameter_), gradient = dense(gradient_), m = dense(m_), v = dense(v_);
  Tensor pn = at::empty(parameter.sizes(), parameter.options());
  Tensor mn = at::empty(parameter.sizes(), parameter.options());
  Tensor vn = at::empty(parameter.sizes(), parameter.options());
  float f[7];
  for (int i = 0; i < 7; i++) f[i] = static_cast<float>(factors[i]);
  at::parallel_for(0, parameter.numel(), GRAIN, [&](int64_t first, int64_t last) {
    adamw_range(in(parameter), in(gradient), in(m), in(v), out(pn), out(mn), out(vn), f, first, last);
  });
  return {pn, mn, vn};
}

TORCH_LIBRARY(alitok, library) {
  library.def("linear_few(Tensor x, Tensor weight, Tensor? bias) -> Tensor", linear_few);
  library.def("rms_norm(Tensor x, Tensor weight, float epsilon) -> Tensor", rms_norm);
  library.def("rms_norm_grad(Tensor dy, Tensor x, Tensor weight, float epsilon) -> (Tensor, Tensor)", rms_norm_grad);
  library.def("rotary(Tensor x, Tensor cos, Tensor sin, bool inverse) -> Tensor", rotary);
  library.def("attention_step(Tensor q, Tensor k, Tensor v, int length) -> Tensor", attention_step);
  library.def("swiglu(Tensor gate, Tensor value) -> Tensor", swiglu);
  library.def("swiglu_grad(Tensor dy, Tensor gate, Tensor value) -> (Tensor, Tensor)", swiglu_grad);
  library.def("dropout(Tensor x, float rate, int seed) -> Tensor", dropout);
  library.def("adamw(Tensor parameter, Tensor gradient, Tensor m, Tensor v, float[] factors) -> (Tensor, Tensor, Tensor)",
              adamw);
}

}  // namespace
