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

template <int Lanes>
using Integers __attribute__((vector_size(4 * Lanes))) = int32_t;
template <int Lanes>
using Words __attribute__((vector_size(4 * Lanes))) = uint32_t;

/** Weights come in groups of so many words; part j of word l of a group is weight 16·j + l of its. */
constexpr int GROUP = 16;

/** Weights of one kind: how many are in a word, and how a part of a vector of words becomes floats. */
struct Float32 {
  typedef float Stored;
  static constexpr int PARTS = 1;
  template <int Lanes>
  static INLINE Floats<Lanes> part(const Words<Lanes>& words, int) {
    return reinterpret_cast<Floats<Lanes>>(words);
  }
};
struct BFloat16 { // the upper half of a float's bits
  typedef at::BFloat16 Stored;
  static constexpr int PARTS = 2;
  template <int Lanes>
  static INLINE Floats<Lanes> part(const Words<Lanes>& words, int j) {
    return reinterpret_cast<Floats<Lanes>>(j == 0 ? words << 16 : words & 0xffff0000u);
  }
};
struct Int8 {
  typedef int8_t Stored;
  static constexpr int PARTS = 4;
  template <int Lanes>
  static INLINE Floats<Lanes> part(const Words<Lanes>& words, int j) {
    return __builtin_convertvector(reinterpret_cast<Integers<Lanes>>(words << (24 - 8 * j)) >> 24, Floats<Lanes>);
  }
};

template <int Lanes>
INLINE float sum_of_lanes(const Floats<Lanes>& value) {
  if constexpr (Lanes == 4) {
    return (value[0] + value[1]) + (value[2] + value[3]);
  } else {
    Floats<Lanes / 2> halves[2];
    std::memcpy(halves, &value, sizeof value);
    return sum_of_lanes<Lanes / 2>(halves[0] + halves[1]);
  }
}

template <typename Kind>
struct Problem {
  const float* x;
  const typename Kind::Stored* w;
  const float *scale, *bias; // (out), or null
  float* y;
  int64_t n, outputs;
};

/** Rows of x that meet an output's weights together; for more, there are several passes. */
constexpr int PASS = 4;

/** `Rows` rows of x from `row` on with `Outputs` rows of W from `output` on. */
template <int Lanes, int Rows, int Outputs, typename Kind>
INLINE void dot_products(const Problem<Kind>& problem, int64_t row, int64_t output, bool alone) {
  const auto [x, w, scale, bias, y, n, outputs] = problem;
  // The next outputs' weights are fetched meanwhile: all of them, or one in each of several passes, so that none waits.
  const auto* ahead = w + (output + Outputs + std::min<int64_t>(row / PASS, Outputs - 1)) * n;
  Floats<Lanes> sum[Rows][Outputs] = {};
  for (int64_t i = 0; i < n; i += GROUP * Kind::PARTS) {
    if (alone)
#pragma GCC unroll 8
      for (int o = 0; o < Outputs; o++) __builtin_prefetch(w + (output + Outputs + o) * n + i);
    else __builtin_prefetch(ahead + i);
#pragma GCC unroll 4
    for (int v = 0; v < GROUP; v += Lanes) {
      Words<Lanes> words[Outputs];
#pragma GCC unroll 8
      for (int o = 0; o < Outputs; o++)
        std::memcpy(&words[o], w + (output + o) * n + i + v * Kind::PARTS, sizeof words[o]);
#pragma GCC unroll 4
      for (int j = 0; j < Kind::PARTS; j++) {
        Floats<Lanes> weights[Outputs];
#pragma GCC unroll 8
        for (int o = 0; o < Outputs; o++) weights[o] = Kind::template part<Lanes>(words[o], j);
#pragma GCC unroll 8
        for (int r = 0; r < Rows; r++) {
          Floats<Lanes> values;
          std::memcpy(&values, x + (row + r) * n + i + j * GROUP + v, sizeof values);
#pragma GCC unroll 8
          for (int o = 0; o < Outputs; o++) sum[r][o] += values * weights[o];
        }
      }
    }
  }
  for (int r = 0; r < Rows; r++)
    for (int o = 0; o < Outputs; o++) {
      const float total = sum_of_lanes<Lanes>(sum[r][o]) * (scale ? scale[output + o] : 1);
      y[(row + r) * outputs + output + o] = total + (bias ? bias[output + o] : 0);
    }
}

template <int Lanes, int Outputs, typename Kind>
INLINE void all_rows(const Problem<Kind>& problem, int64_t rows, int64_t output) {
  const bool alone = rows <= PASS;
  int64_t row = 0;
  for (; row + PASS <= rows; row += PASS) dot_products<Lanes, PASS, Outputs>(problem, row, output, alone);
  if (row + 2 <= rows) {
    dot_products<Lanes, 2, Outputs>(problem, row, output, alone);
    row += 2;
  }
  if (row < rows) dot_products<Lanes, 1, Outputs>(problem, row, output, alone);
}

template <int Lanes, typename Kind>
INLINE void some_outputs(const Problem<Kind>& problem, int64_t rows, int64_t first, int64_t last) {
  constexpr int together = Lanes == 16 ? 4 : 3; // all that an iteration needs stays in 32 or 16 registers
  int64_t output = first;
  for (; output + together <= last; output += together) all_rows<Lanes, together>(problem, rows, output);
  for (; output < last; output++) all_rows<Lanes, 1>(problem, rows, output);
}
FOR_VECTORS(few_rows, some_outputs)

/**
 * y (…, out) = x·weightᵀ + bias for x (…, in) in float32 and weight (out, in): float32, or as
 * `pack_bf16` or `pack_int8` gives it, the latter with a scale for each of its rows. `in` is a multiple of 16, 32, or 64.
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
    TORCH_CHECK(n % (GROUP * Kind::PARTS) == 0, "weight (", outputs, ", ", n, ") has no whole groups");
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

/** weight (out, in) in the order of groups. */
template <typename Kind>
Tensor in_groups(const Tensor& weight) {
  const int64_t outputs = weight.size(0), n = weight.size(1), step = GROUP * Kind::PARTS;
  TORCH_CHECK(n % step == 0, "weight (", outputs, ", ", n, ") is no multiple of ", step, " wide");
  return weight.view({outputs, n / step, Kind::PARTS, GROUP}).transpose(2, 3).contiguous().view({outputs, n});
}

/** float32 (out, in) → bfloat16, in groups. */
Tensor pack_bf16(const Tensor& weight) { return in_groups<BFloat16>(dense(weight).to(at::kBFloat16)); }

/** float32 (out, in) → int8 in groups, and the scale of each row: its largest weight becomes ±127. */
std::tuple<Tensor, Tensor> pack_int8(const Tensor& weight_) {
  const Tensor weight = dense(weight_);
  const Tensor scale = weight.abs().amax(1).clamp_min(1e-30).div(127);
  return {in_groups<Int8>(weight.div(scale.unsqueeze(1)).round().to(at::kChar)), scale};
}

TORCH_LIBRARY_FRAGMENT(alitok, library) {
  library.def("pack_bf16(Tensor weight) -> Tensor", pack_bf16);
  library.def("pack_int8(Tensor weight) -> (Tensor, Tensor)", pack_int8);
  library.def("linear_few(Tensor x, Tensor weight, Tensor? scale, Tensor? bias) -> Tensor", linear_few);
}

}  // namespace
}  // namespace alitok
