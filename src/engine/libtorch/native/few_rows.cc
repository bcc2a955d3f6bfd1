// y = x·Wᵀ + b for few rows of x, as in a decoding step. Its time is the time to read W from memory, so each row of W is
// read once, in memory order, and multiplied with all rows of x. W may be stored in fewer bits: bfloat16, or 8-bit
// integers with a scale for each row.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <cstring>

#include "few_rows.h"
#include "few_rows_int8.h"
#include "simd.h"

namespace alitok {
namespace {

template <int Lanes>
using Words __attribute__((vector_size(4 * Lanes))) = uint32_t;

/** The number of words in a group of weights; part j of word l of a group is the group's weight 16·j + l. */
constexpr int GROUP = 16;

/** Formats of weights: the number of weights in a word, and the conversion of a part of a vector of words to floats. */
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

template <typename Kind>
struct Problem {
  const float* x;
  int64_t rows;
  const typename Kind::Stored* w;
  const float *scale, *bias; // (out), or null
  float* y;
  int64_t n, outputs;

  /** Writes one output of `Rows` rows starting at `row`; their sums are `apart` from each other. */
  template <int Rows>
  INLINE void write(int64_t row, int64_t output, const float* sums, int apart) const {
    const float factor = scale ? scale[output] : 1, offset = bias ? bias[output] : 0;
    float* to = y + row * outputs + output;
#pragma GCC unroll 4
    for (int r = 0; r < Rows; r++) to[r * outputs] = sums[r * apart] * factor + offset;
  }
};

// Up to four rows: vectors run along a row, and their lanes are added up at its end.

constexpr int64_t DOT_ROWS = 4;

/** Multiplies `Rows` rows of x, starting at `row`, with `Outputs` rows of W, starting at `output` and `apart` rows apart. */
template <int Lanes, int Rows, int Outputs, typename Kind>
INLINE void dot_products(const Problem<Kind>& problem, int64_t row, int64_t output, int64_t apart) {
  const int64_t n = problem.n;
  const float* x = problem.x + row * n;
  const auto* w = problem.w + output * n;
  // The first of several passes over the same weights would wait for memory, so each pass prefetches some of the next.
  const bool several = problem.rows > DOT_ROWS;
  const auto next = [&](int64_t stream) { return w + (stream % Outputs * apart + 1) * n; };
  const auto ahead = {next(row / DOT_ROWS), next(row / DOT_ROWS + 2)};
  constexpr int count = Rows * Outputs, whole = (count + Lanes - 1) / Lanes * Lanes;
  Floats<Lanes> sum[whole] = {};
  for (int64_t i = 0; i < n; i += GROUP * Kind::PARTS) {
    if (several)
#pragma GCC unroll 2
      for (const auto* row_ahead : ahead) __builtin_prefetch(row_ahead + i, 0, 1);
#pragma GCC unroll 4
    for (int v = 0; v < GROUP; v += Lanes) {
      Words<Lanes> words[Outputs];
#pragma GCC unroll 8
      for (int o = 0; o < Outputs; o++) std::memcpy(&words[o], w + o * apart * n + i + v * Kind::PARTS, sizeof words[o]);
#pragma GCC unroll 4
      for (int j = 0; j < Kind::PARTS; j++) {
        Floats<Lanes> weights[Outputs];
#pragma GCC unroll 8
        for (int o = 0; o < Outputs; o++) weights[o] = Kind::template part<Lanes>(words[o], j);
#pragma GCC unroll 8
        for (int r = 0; r < Rows; r++) {
          Floats<Lanes> values;
          std::memcpy(&values, x + r * n + i + j * GROUP + v, sizeof values);
#pragma GCC unroll 8
          for (int o = 0; o < Outputs; o++) sum[r * Outputs + o] += values * weights[o];
        }
      }
    }
  }
  float sums[whole];
#pragma GCC unroll 4
  for (int i = 0; i < count; i += Lanes) {
    const Floats<Lanes> some = sums_of_lanes<Lanes>(sum + i);
    std::memcpy(sums + i, &some, sizeof some);
  }
#pragma GCC unroll 8
  for (int o = 0; o < Outputs; o++)
    problem.template write<Rows>(row, output + o * apart, sums + o, Outputs);
}

template <int Lanes, int Outputs, typename Kind>
INLINE void all_rows(const Problem<Kind>& problem, int64_t output, int64_t apart) {
  const int64_t rows = problem.rows;
  int64_t row = 0;
  for (; row + DOT_ROWS <= rows; row += DOT_ROWS) dot_products<Lanes, DOT_ROWS, Outputs>(problem, row, output, apart);
  if (row + 2 <= rows) {
    dot_products<Lanes, 2, Outputs>(problem, row, output, apart);
    row += 2;
  }
  if (row < rows) dot_products<Lanes, 1, Outputs>(problem, row, output, apart);
}

template <int Lanes, typename Kind>
INLINE void by_dot_products(const Problem<Kind>& problem, int64_t first, int64_t last) {
  constexpr int together = Lanes == 16 ? 4 : 3; // all that an iteration needs stays in 32 or 16 registers
  const int64_t apart = (last - first) / together; // each is read in memory order, which suits the processor's prefetching
  for (int64_t output = first; output < first + apart; output++) all_rows<Lanes, together>(problem, output, apart);
  for (int64_t output = first + together * apart; output < last; output++) all_rows<Lanes, 1>(problem, output, 0);
}
FOR_VECTORS(dot_few_rows, by_dot_products)

}  // namespace

FewRowsLayer few_rows_layer(const Tensor& weight, const Tensor& scale, const Tensor& bias) {
  const auto type = weight.scalar_type();
  const int64_t n = weight.size(1), outputs = weight.size(0), parts = type == at::kFloat ? 1 : type == at::kBFloat16 ? 2 : 4;
  TORCH_CHECK(n % (GROUP * parts) == 0, "weight (", outputs, ", ", n, ") has no whole groups");
  const auto data = [](const Tensor& t) { return t.defined() ? in(t) : nullptr; };
  return {weight.data_ptr(), type, data(scale), data(bias), outputs, n};
}

void few_rows_product(const float* x, int64_t rows, const FewRowsLayer& layer, int64_t first, int64_t last, float* y) {
  const auto run = [&](auto kind) {
    using Kind = decltype(kind);
    dot_few_rows(Problem<Kind>{x, rows, static_cast<const typename Kind::Stored*>(layer.weight), layer.scale, layer.bias,
                               y, layer.n, layer.outputs},
                 first, last);
  };
  if (layer.type == at::kFloat) run(Float32());
  else if (layer.type == at::kBFloat16) run(BFloat16());
  else if (multiplies_bytes(layer)) few_rows_bytes(x, rows, layer, first, last, y);
  else run(Int8());
}

namespace {

/**
 * y (…, out) = x·weightᵀ + bias for x (…, in) in float32 and weight (out, in): float32, or the result of `pack_bf16` or
 * `pack_int8`, the latter with a scale for each row. `in` is a multiple of 16, 32, or 64, respectively.
 */
Tensor linear_few(const Tensor& x_, const Tensor& weight_, const c10::optional<Tensor>& scale,
                  const c10::optional<Tensor>& bias) {
  const auto given = [](const c10::optional<Tensor>& t) { return t.has_value() && t->defined() ? dense(*t) : Tensor(); };
  const Tensor x = dense(x_), weight = weight_.contiguous(), scales = given(scale), offsets = given(bias);
  const FewRowsLayer layer = few_rows_layer(weight, scales, offsets);
  auto shape = x.sizes().vec();
  TORCH_CHECK(shape.back() == layer.n, "x (…, ", shape.back(), ") does not fit weight (", layer.outputs, ", ", layer.n, ")");
  shape.back() = layer.outputs;
  Tensor y = at::empty(shape, x.options());
  const int64_t threads = std::min<int64_t>(at::get_num_threads(), layer.outputs * layer.n / GRAIN + 1);
  Chunks chunks;
  at::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    chunks.take(layer.outputs, FEW_ROWS_CHUNK,
                [&](int64_t first, int64_t last) { few_rows_product(in(x), x.numel() / layer.n, layer, first, last, out(y)); });
  });
  return y;
}

/** weight (out, in), reordered into groups. */
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
