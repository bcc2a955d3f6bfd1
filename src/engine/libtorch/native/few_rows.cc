// y = x·Wᵀ + b for few rows of x: the decoding step. Its time is what reading W from memory takes, so each row of W is
// read once, in the order of memory, meets all rows of x, and may be kept in fewer bits: bfloat16, or 8-bit integers
// with a scale for each row.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <cstring>

#include "simd.h"

namespace alitok {
namespace {

/** Lanes that work together; a processor with shorter vectors takes several. */
constexpr int LANES = 16;
typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Integers __attribute__((vector_size(4 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));

/** Reads weights of one kind, `STEP` at a time, as vectors of floats. */
struct Float32 {
  typedef float Stored;
  static constexpr int STEP = LANES;
  static INLINE void load(const Stored* from, Floats* to) { std::memcpy(to, from, sizeof *to); }
};
struct BFloat16 {
  typedef at::BFloat16 Stored;
  static constexpr int STEP = LANES;
  static INLINE void load(const Stored* from, Floats* to) {
    Halves halves;
    std::memcpy(&halves, from, sizeof halves);
    *to = reinterpret_cast<Floats>(__builtin_convertvector(halves, Words) << 16); // the upper half of a float's bits
  }
};
/** Of each 64 weights, byte j of word l is weight 16·j + l: so shifts of whole words take them apart. */
struct Int8 {
  typedef int8_t Stored;
  static constexpr int STEP = 4 * LANES;
  static INLINE void load(const Stored* from, Floats* to) {
    Integers words;
    std::memcpy(&words, from, sizeof words);
    to[0] = __builtin_convertvector(words << 24 >> 24, Floats);
    to[1] = __builtin_convertvector(words << 16 >> 24, Floats);
    to[2] = __builtin_convertvector(words << 8 >> 24, Floats);
    to[3] = __builtin_convertvector(words >> 24, Floats);
  }
};

INLINE float sum_of_lanes(const Floats& value) {
  typedef float Half __attribute__((vector_size(2 * LANES)));
  typedef float Quarter __attribute__((vector_size(LANES)));
  Half halves[2];
  std::memcpy(halves, &value, sizeof value);
  const Half half = halves[0] + halves[1];
  Quarter quarters[2];
  std::memcpy(quarters, &half, sizeof half);
  const Quarter quarter = quarters[0] + quarters[1];
  return (quarter[0] + quarter[1]) + (quarter[2] + quarter[3]);
}

template <typename Kind>
struct Problem {
  const float* x;
  const typename Kind::Stored* w;
  const float *scale, *bias; // (out), or null
  float* y;
  int64_t n, outputs;
};

/** `Rows` rows of x from `row` on with `Outputs` rows of W from `output` on. */
template <int Rows, int Outputs, typename Kind>
INLINE void dot_products(const Problem<Kind>& problem, int64_t row, int64_t output) {
  const auto [x, w, scale, bias, y, n, outputs] = problem;
  constexpr int vectors = Kind::STEP / LANES;
  Floats sum[Rows][Outputs] = {};
  for (int64_t i = 0; i < n; i += Kind::STEP) {
    Floats weights[Outputs][vectors];
#pragma GCC unroll 8
    for (int o = 0; o < Outputs; o++) Kind::load(w + (output + o) * n + i, weights[o]);
    if (row == 0) // the other rows find the weights in the cache
#pragma GCC unroll 8
      for (int o = 0; o < Outputs; o++) __builtin_prefetch(w + (output + Outputs + o) * n + i);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; r++)
#pragma GCC unroll 8
      for (int v = 0; v < vectors; v++) {
        Floats values;
        std::memcpy(&values, x + (row + r) * n + i + v * LANES, sizeof values);
#pragma GCC unroll 8
        for (int o = 0; o < Outputs; o++) sum[r][o] += values * weights[o][v];
      }
  }
  for (int r = 0; r < Rows; r++)
    for (int o = 0; o < Outputs; o++) {
      const float total = sum_of_lanes(sum[r][o]) * (scale ? scale[output + o] : 1);
      y[(row + r) * outputs + output + o] = total + (bias ? bias[output + o] : 0);
    }
}

template <int Outputs, typename Kind>
INLINE void all_rows(const Problem<Kind>& problem, int64_t rows, int64_t output) {
  int64_t row = 0;
  for (; row + 4 <= rows; row += 4) dot_products<4, Outputs>(problem, row, output);
  if (row + 2 <= rows) {
    dot_products<2, Outputs>(problem, row, output);
    row += 2;
  }
  if (row < rows) dot_products<1, Outputs>(problem, row, output);
}

template <typename Kind>
INLINE void some_outputs(const Problem<Kind>& problem, int64_t rows, int64_t first, int64_t last) {
  constexpr int together = Kind::STEP == LANES ? 4 : 2; // all that an iteration needs stays in registers
  int64_t output = first;
  for (; output + together <= last; output += together) all_rows<together>(problem, rows, output);
  for (; output < last; output++) all_rows<1>(problem, rows, output);
}

VECTORIZED void few_rows(const Problem<Float32>& problem, int64_t rows, int64_t first, int64_t last) {
  some_outputs(problem, rows, first, last);
}
VECTORIZED void few_rows(const Problem<BFloat16>& problem, int64_t rows, int64_t first, int64_t last) {
  some_outputs(problem, rows, first, last);
}
VECTORIZED void few_rows(const Problem<Int8>& problem, int64_t rows, int64_t first, int64_t last) {
  some_outputs(problem, rows, first, last);
}

/**
 * y (…, out) = x·weightᵀ + bias for x (…, in) in float32 and weight (out, in): float32, bfloat16, or int8 in the order
 * of `Int8` with a scale for each of its rows. `in` is a multiple of 16, for int8 of 64.
 */
Tensor linear_few(const Tensor& x_, const Tensor& weight_, const c10::optional<Tensor>& scale,
                  const c10::optional<Tensor>& bias) {
  const Tensor x = dense(x_), weight = weight_.contiguous();
  const int64_t n = weight.size(1), outputs = weight.size(0), rows = x.numel() / n;
  auto shape = x.sizes().vec();
  TORCH_CHECK(shape.back() == n, "x (…, ", shape.back(), ") does not fit weight (", outputs, ", ", n, ")");
  shape.back() = outputs;
  Tensor y = at::empty(shape, x.options());
  const auto given = [](const c10::optional<Tensor>& t) { return t.has_value() && t->defined(); };
  const Tensor scales = given(scale) ? dense(*scale) : Tensor(), offsets = given(bias) ? dense(*bias) : Tensor();
  const auto run = [&](auto kind) {
    using Kind = decltype(kind);
    TORCH_CHECK(n % Kind::STEP == 0, "weight (", outputs, ", ", n, ") is no multiple of ", Kind::STEP, " wide");
    const Problem<Kind> problem{in(x), weight.data_ptr<typename Kind::Stored>(),
                                scales.defined() ? in(scales) : nullptr, offsets.defined() ? in(offsets) : nullptr,
                                out(y), n, outputs};
    at::parallel_for(0, outputs, std::max<int64_t>(4, GRAIN / n),
                     [&](int64_t first, int64_t last) { few_rows(problem, rows, first, last); });
  };
  if (weight.scalar_type() == at::kFloat) run(Float32());
  else if (weight.scalar_type() == at::kBFloat16) run(BFloat16());
  else run(Int8());
  return y;
}

/** float32 (out, in) → int8 in the order of `Int8`, and the scale of each row: its largest weight becomes ±127. */
std::tuple<Tensor, Tensor> pack_int8(const Tensor& weight_) {
  const Tensor weight = dense(weight_);
  const int64_t outputs = weight.size(0), n = weight.size(1);
  TORCH_CHECK(n % Int8::STEP == 0, "weight (", outputs, ", ", n, ") is no multiple of ", int(Int8::STEP), " wide");
  const Tensor scale = weight.abs().amax(1).clamp_min(1e-30).div(127);
  const Tensor rounded = weight.div(scale.unsqueeze(1)).round().to(at::kChar);
  return {rounded.view({outputs, n / Int8::STEP, 4, LANES}).transpose(2, 3).contiguous().view({outputs, n}), scale};
}

TORCH_LIBRARY_FRAGMENT(alitok, library) {
  library.def("pack_int8(Tensor weight) -> (Tensor, Tensor)", pack_int8);
  library.def("linear_few(Tensor x, Tensor weight, Tensor? scale, Tensor? bias) -> Tensor", linear_few);
}

}  // namespace
}  // namespace alitok
