// softmax(q·kᵀ/√D)·v on the CPU, a few queries at a time (Dao et al., 2022), so that the full score matrix is never in
// memory; the gradient recomputes the scores. q, k, v are (B, T, H, D), as in the models, with D a multiple of 16. Their
// rows may be strided, as in the three parts of one projection.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <vector>

#include "hash.h"
#include "rows.h"
#include "simd.h"

namespace alitok {
namespace {

/**
 * The width of a head is a multiple of this, and rows of scores are padded to a multiple of twice this: whole vectors on
 * every processor.
 */
constexpr int64_t WHOLE = 16;

template <int Lanes>
INLINE Floats<Lanes> load(const float* from) {
  Floats<Lanes> value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
template <int Lanes>
INLINE void store(float* to, const Floats<Lanes>& value) {
  std::memcpy(to, &value, sizeof value);
}

#define INLINE_LAMBDA __attribute__((always_inline))

/** Queries that are processed together. */
constexpr int QUERIES = 6;

/** One head of one sequence: T rows of D values, `stride` apart. */
struct Head {
  const float* data;
  int64_t stride;
  const float* row(int64_t t) const { return data + t * stride; }
};

/** Parameters shared by all heads. */
struct Shape {
  int64_t queries, keys, width;
  bool causal;
  float scale, rate; // the scale of the scores, the rate of dropout
  uint32_t seed;

  /** The number of keys, rounded up to whole vectors in memory. */
  int64_t padded() const { return (keys + 2 * WHOLE - 1) / (2 * WHOLE) * (2 * WHOLE); }
  /** The number of keys that query i sees: the last query sees all keys, the one before it all but the last. */
  int64_t seen(int64_t i) const { return causal ? i + 1 + keys - queries : keys; }
};

/** (T, D) → panels of two vectors of keys, (D, 2·Lanes) each, with zeros where the last is not full. */
template <int Lanes>
INLINE void transpose(const Head& head, int64_t tokens, int64_t width, float* to) {
  for (int64_t first = 0; first < tokens; first += 2 * Lanes)
    for (int64_t d = 0; d < width; d++, to += 2 * Lanes)
      for (int64_t t = 0; t < 2 * Lanes; t++) to[t] = first + t < tokens ? head.row(first + t)[d] : 0;
}

/** Copies the rows to contiguous memory: with the stride of a projection they would share the same few cache sets. */
INLINE Head gather(const Head& head, int64_t tokens, int64_t width, std::vector<float>& to) {
  to.resize(tokens * width);
  for (int64_t t = 0; t < tokens; t++) std::copy_n(head.row(t), width, &to[t * width]);
  return {to.data(), width};
}

/** result (rows, count) = a (rows, width) · bᵀ, for b as `transpose` gives it. `count` is rounded up to panels. */
template <int Lanes>
INLINE void scores(const float* const* a, const float* b, int64_t width, int64_t padded, int64_t count, float* result) {
  for (int64_t t = 0; t < count; t += 2 * Lanes) {
    Floats<Lanes> sum[QUERIES][2] = {};
    for (int64_t d = 0; d < width; d++, b += 2 * Lanes) {
      const auto first = load<Lanes>(b), second = load<Lanes>(b + Lanes);
#pragma GCC unroll 8
      for (int r = 0; r < QUERIES; r++) {
        sum[r][0] += a[r][d] * first;
        sum[r][1] += a[r][d] * second;
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < QUERIES; r++) {
      store<Lanes>(result + r * padded + t, sum[r][0]);
      store<Lanes>(result + r * padded + t + Lanes, sum[r][1]);
    }
  }
}

/** Runs `part` on parts of a width, a few vectors each: a part's sums fill the registers, but no part is small. */
template <int Lanes, typename Part>
INLINE void in_parts(int64_t width, Part part) {
  constexpr int most = Lanes == 16 ? 4 : 2; // for 32 registers, or for 16
  int64_t from = 0;
  while (from < width) {
    const int64_t left = (width - from) / Lanes;
    if (left % most == 0) {
      part(std::integral_constant<int, most>(), from);
      from += most * Lanes;
    } else if (most > 3 && left >= 3) {
      part(std::integral_constant<int, most - 1>(), from);
      from += (most - 1) * Lanes;
    } else if (left >= 2) {
      part(std::integral_constant<int, 2>(), from);
      from += 2 * Lanes;
    } else {
      part(std::integral_constant<int, 1>(), from);
      from += Lanes;
    }
  }
}

/** result (rows, width) = p (rows, count) · b (count, width), `Vectors` vectors of the width at a time. */
template <int Lanes, int Vectors>
INLINE void weighted_part(const float* p, int64_t padded, const Head& b, int64_t count, int64_t from, float* result,
                          int64_t width) {
  Floats<Lanes> sum[QUERIES][Vectors] = {};
  for (int64_t t = 0; t < count; t++) {
    Floats<Lanes> row[Vectors];
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; v++) row[v] = load<Lanes>(b.row(t) + from + v * Lanes);
#pragma GCC unroll 8
    for (int r = 0; r < QUERIES; r++)
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; v++) sum[r][v] += p[r * padded + t] * row[v];
  }
#pragma GCC unroll 8
  for (int r = 0; r < QUERIES; r++)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; v++) store<Lanes>(result + r * width + from + v * Lanes, sum[r][v]);
}

template <int Lanes>
INLINE void weighted(const float* p, int64_t padded, const Head& b, int64_t count, float* result, int64_t width) {
  in_parts<Lanes>(width, [&](auto vectors, int64_t from) INLINE_LAMBDA {
    weighted_part<Lanes, vectors>(p, padded, b, count, from, result, width);
  });
}

/** sum (count, width) += pᵀ · a, for p (rows, count) and a (rows, width). */
template <int Lanes, int Vectors>
INLINE void outer_part(const float* p, int64_t padded, const float* const* a, int64_t count, int64_t from, float* sum,
                       int64_t width) {
  Floats<Lanes> rows[QUERIES][Vectors];
#pragma GCC unroll 8
  for (int r = 0; r < QUERIES; r++)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; v++) rows[r][v] = load<Lanes>(a[r] + from + v * Lanes);
  for (int64_t t = 0; t < count; t++) {
    float* to = sum + t * width + from;
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; v++) {
      Floats<Lanes> total = load<Lanes>(to + v * Lanes);
#pragma GCC unroll 8
      for (int r = 0; r < QUERIES; r++) total += p[r * padded + t] * rows[r][v];
      store<Lanes>(to + v * Lanes, total);
    }
  }
}

template <int Lanes>
INLINE void outer(const float* p, int64_t padded, const float* const* a, int64_t count, float* sum, int64_t width) {
  in_parts<Lanes>(width, [&](auto vectors, int64_t from) INLINE_LAMBDA {
    outer_part<Lanes, vectors>(p, padded, a, count, from, sum, width);
  });
}

/** A block of queries: `QUERIES` of them starting at `first`, or those left, and the number of keys the last one sees. */
struct Block {
  int64_t first, rows, seen;
  Block(const Shape& shape, int64_t first)
      : first(first), rows(std::min<int64_t>(QUERIES, shape.queries - first)), seen(shape.seen(first + rows - 1)) {}
  /** The block's rows of a head; if there are fewer than QUERIES, the last one is repeated. */
  void of(const Head& head, const float** to) const {
    for (int r = 0; r < QUERIES; r++) to[r] = head.row(first + std::min<int64_t>(r, rows - 1));
  }
};

/** The maximum of a row, lane by lane, because compilers do not vectorize a plain loop for it. */
template <int Lanes>
INLINE float largest_of(const float* row, int64_t count) {
  float largest = row[0];
  int64_t t = 0;
  if (count >= Lanes) {
    auto lanes = load<Lanes>(row);
    for (; t + Lanes <= count; t += Lanes) {
      const auto next = load<Lanes>(row + t);
      lanes = next > lanes ? next : lanes;
    }
    for (int l = 0; l < Lanes; l++) largest = std::max(largest, lanes[l]);
  }
  for (; t < count; t++) largest = std::max(largest, row[t]);
  return largest;
}

/** softmax(s·scale) of each row in place. Keys that the query does not see get 0, or NaN if the rest of the row is NaN. */
template <int Lanes>
INLINE void softmax(const Shape& shape, const Block& block, float* s, int64_t padded) {
  for (int64_t r = 0; r < block.rows; r++) {
    float* row = s + r * padded;
    const int64_t seen = shape.seen(block.first + r);
    const float largest = largest_of<Lanes>(row, seen);
    float total = 0;
    for (int64_t t = 0; t < seen; t++) {
      row[t] = exponential((row[t] - largest) * shape.scale);
      total += row[t];
    }
    const float factor = 1 / total;
    for (int64_t t = 0; t < seen; t++) row[t] *= factor;
    for (int64_t t = seen; t < block.seen; t++) row[t] = 0 * factor;
  }
}

/** Multiplies the dropped elements of a row by 0, which keeps NaN, and scales the others. `at`: the first one's index. */
INLINE void drop(const Shape& shape, const float* from, float* to, int64_t count, uint32_t at) {
  const auto threshold = static_cast<uint32_t>(shape.rate * 4294967296.0);
  const float kept = 1 / (1 - shape.rate);
  for (int64_t t = 0; t < count; t++)
    to[t] = from[t] * (hash(at + static_cast<uint32_t>(t), shape.seed) >= threshold ? kept : 0);
}

/** y (queries, width) of head number `head`; its rows are `y_stride` apart. */
template <int Lanes>
INLINE void forward_head(const Shape& shape, Head q, Head k, Head v, float* y, int64_t y_stride, int64_t head) {
  const int64_t padded = shape.padded(), width = shape.width;
  std::vector<float> keys(width * padded), values, p(QUERIES * padded), result(QUERIES * width);
  transpose<Lanes>(k, shape.keys, width, keys.data());
  v = gather(v, shape.keys, width, values);
  for (int64_t first = 0; first < shape.queries; first += QUERIES) {
    const Block block(shape, first);
    const float* rows[QUERIES];
    block.of(q, rows);
    scores<Lanes>(rows, keys.data(), width, padded, block.seen, p.data());
    softmax<Lanes>(shape, block, p.data(), padded);
    if (shape.rate > 0)
      for (int64_t r = 0; r < block.rows; r++)
        drop(shape, &p[r * padded], &p[r * padded], block.seen, (head * shape.queries + first + r) * shape.keys);
    weighted<Lanes>(p.data(), padded, v, block.seen, result.data(), width);
    for (int64_t r = 0; r < block.rows; r++)
      std::copy(&result[r * width], &result[(r + 1) * width], y + (first + r) * y_stride);
  }
}
FOR_VECTORS(forward, forward_head)

/** dq, dk, dv of one head, their rows `stride` apart. */
template <int Lanes>
INLINE void backward_head(const Shape& shape, Head dy, Head q, Head k, Head v, float* dq, float* dk, float* dv,
                          int64_t stride, int64_t head) {
  const int64_t padded = shape.padded(), width = shape.width;
  std::vector<float> keys(width * padded), values(width * padded), rows;
  std::vector<float> p(QUERIES * padded), ds(QUERIES * padded), dropped(QUERIES * padded), result(QUERIES * width);
  std::vector<float> sums(2 * shape.keys * width, 0.0f);
  transpose<Lanes>(k, shape.keys, width, keys.data());
  transpose<Lanes>(v, shape.keys, width, values.data());
  k = gather(k, shape.keys, width, rows);
  for (int64_t first = 0; first < shape.queries; first += QUERIES) {
    const Block block(shape, first);
    const float *queries[QUERIES], *gradients[QUERIES];
    block.of(q, queries);
    block.of(dy, gradients);
    scores<Lanes>(queries, keys.data(), width, padded, block.seen, p.data());
    softmax<Lanes>(shape, block, p.data(), padded);
    scores<Lanes>(gradients, values.data(), width, padded, block.seen, ds.data());
    for (int64_t r = 0; r < block.rows; r++) {
      float *probability = &p[r * padded], *gradient = &ds[r * padded], *kept = &dropped[r * padded];
      const uint32_t at = (head * shape.queries + first + r) * shape.keys;
      if (shape.rate > 0) {
        drop(shape, probability, kept, block.seen, at);
        drop(shape, gradient, gradient, block.seen, at);
      } else {
        std::copy(probability, probability + block.seen, kept);
      }
      // Gradient of the softmax: ds = p·(dp − Σ p·dp), then the scale; 0 for keys the row does not see, whatever their dp.
      const int64_t seen = shape.seen(first + r);
      float along = 0;
      for (int64_t t = 0; t < block.seen; t++) along += probability[t] * gradient[t];
      for (int64_t t = 0; t < seen; t++) gradient[t] = probability[t] * (gradient[t] - along) * shape.scale;
      std::fill(gradient + seen, gradient + block.seen, 0.0f);
    }
    for (int64_t r = block.rows; r < QUERIES; r++) { // repeated rows must count once
      std::fill_n(&ds[r * padded], block.seen, 0.0f);
      std::fill_n(&dropped[r * padded], block.seen, 0.0f);
    }
    weighted<Lanes>(ds.data(), padded, k, block.seen, result.data(), width);
    for (int64_t r = 0; r < block.rows; r++)
      std::copy(&result[r * width], &result[(r + 1) * width], dq + (first + r) * stride);
    outer<Lanes>(ds.data(), padded, queries, block.seen, sums.data(), width);
    outer<Lanes>(dropped.data(), padded, gradients, block.seen, sums.data() + shape.keys * width, width);
  }
  for (int64_t t = 0; t < shape.keys; t++) {
    std::copy_n(&sums[t * width], width, dk + t * stride);
    std::copy_n(&sums[(shape.keys + t) * width], width, dv + t * stride);
  }
}
FOR_VECTORS(backward, backward_head)

/** A tensor (B, T, H, D) with contiguous heads: itself, or a copy. */
Tensor with_whole_heads(const Tensor& x) {
  TORCH_CHECK(x.scalar_type() == at::kFloat && x.is_cpu(), "a float32 tensor on the CPU is expected");
  return x.stride(3) == 1 && x.stride(2) == x.size(3) ? x : x.contiguous();
}

Head head_of(const Tensor& x, int64_t index) {
  const int64_t heads = x.size(2);
  return {in(x) + index / heads * x.stride(0) + index % heads * x.size(3), x.stride(1)};
}

Shape shape_of(const Tensor& q, const Tensor& k, bool causal, double rate, int64_t seed) {
  TORCH_CHECK(q.size(3) % WHOLE == 0, "heads ", q.size(3), " wide are no multiple of ", WHOLE);
  return {q.size(1), k.size(1), q.size(3), causal, 1 / std::sqrt(static_cast<float>(q.size(3))),
          static_cast<float>(rate), static_cast<uint32_t>(seed)};
}

Tensor attention(const Tensor& q_, const Tensor& k_, const Tensor& v_, bool causal, double rate, int64_t seed) {
  const Tensor q = with_whole_heads(q_), k = with_whole_heads(k_), v = with_whole_heads(v_);
  const Shape shape = shape_of(q, k, causal, rate, seed);
  Tensor y = at::empty(q.sizes(), q.options());
  at::parallel_for(0, q.size(0) * q.size(2), 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; i++)
      forward(shape, head_of(q, i), head_of(k, i), head_of(v, i), const_cast<float*>(head_of(y, i).data), y.stride(1), i);
  });
  return y;
}

std::tuple<Tensor, Tensor, Tensor> attention_grad(const Tensor& dy_, const Tensor& q_, const Tensor& k_,
                                                  const Tensor& v_, bool causal, double rate, int64_t seed) {
  const Tensor dy = with_whole_heads(dy_), q = with_whole_heads(q_), k = with_whole_heads(k_), v = with_whole_heads(v_);
  const Shape shape = shape_of(q, k, causal, rate, seed);
  Tensor dq = at::empty(q.sizes(), q.options()), dk = at::empty(k.sizes(), k.options());
  Tensor dv = at::empty(v.sizes(), v.options());
  at::parallel_for(0, q.size(0) * q.size(2), 1, [&](int64_t first, int64_t last) {
    const auto writable = [](const Tensor& x, int64_t i) { return const_cast<float*>(head_of(x, i).data); };
    for (int64_t i = first; i < last; i++)
      backward(shape, head_of(dy, i), head_of(q, i), head_of(k, i), head_of(v, i), writable(dq, i), writable(dk, i),
               writable(dv, i), dq.stride(1), i);
  });
  return {dq, dk, dv};
}

// Decoding: one query per sequence, over the first `length` rows of caches (B, Tmax, H, D)

}  // namespace

VECTORIZED void attend(const float* q, const float* k, const float* v, float* y, float* p, int64_t length,
                       int64_t stride, int64_t width, float scale) {
  float largest = -INFINITY;
  for (int64_t t = 0; t < length; t++) {
    const float* key = k + t * stride;
    float sum = 0;
    for (int64_t d = 0; d < width; d++) sum += q[d] * key[d];
    p[t] = sum * scale;
    largest = std::max(largest, p[t]);
  }
  float total = 0;
  for (int64_t t = 0; t < length; t++) {
    p[t] = exponential(p[t] - largest);
    total += p[t];
  }
  for (int64_t d = 0; d < width; d++) y[d] = 0;
  for (int64_t t = 0; t < length; t++) {
    const float weight = p[t] / total;
    const float* value = v + t * stride;
    for (int64_t d = 0; d < width; d++) y[d] += weight * value[d];
  }
}

namespace {

/** q (B, 1, H, D), k and v (B, Tmax, H, D) → (B, 1, H, D) */
Tensor attention_step(const Tensor& q_, const Tensor& k_, const Tensor& v_, int64_t length) {
  const Tensor q = dense(q_), k = dense(k_), v = dense(v_);
  const int64_t heads = q.size(2), width = q.size(3), longest = k.size(1);
  Tensor y = at::empty(q.sizes(), q.options());
  const int64_t grain = std::max<int64_t>(1, GRAIN / (length * width));
  at::parallel_for(0, q.size(0) * heads, grain, [&](int64_t first, int64_t last) {
    std::vector<float> p(length);
    for (int64_t i = first; i < last; i++) {
      const int64_t cache = (i / heads) * longest * heads * width + (i % heads) * width;
      attend(in(q) + i * width, in(k) + cache, in(v) + cache, out(y) + i * width, p.data(), length, heads * width, width,
             1 / std::sqrt(static_cast<float>(width)));
    }
  });
  return y;
}

TORCH_LIBRARY_FRAGMENT(alitok, library) {
  library.def("attention(Tensor q, Tensor k, Tensor v, bool causal, float rate, int seed) -> Tensor", attention);
  library.def(
      "attention_grad(Tensor dy, Tensor q, Tensor k, Tensor v, bool causal, float rate, int seed) -> "
      "(Tensor, Tensor, Tensor)",
      attention_grad);
  library.def("attention_step(Tensor q, Tensor k, Tensor v, int length) -> Tensor", attention_step);
}

}  // namespace
}  // namespace alitok
