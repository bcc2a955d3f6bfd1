// Matrix products in float32 after Goto & van de Geijn (2008). Both factors are copied piece by piece into panels, in the
// order in which the kernel reads them; the kernel keeps its tile of the result in registers. The BLAS that comes with
// PyTorch may be anything from excellent to fifty times slower; with this, the engine's speed does not depend on it.
#include "gemm.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "simd.h"

namespace alitok {
namespace {

/** The largest depth of a panel: one panel of b stays near the processor while it is multiplied with all of a's. */
constexpr int64_t DEPTH = 384;
/** The most rows of a packed at a time: with DEPTH, they fill somewhat more than half of a 1 MiB second-level cache. */
constexpr int64_t ROWS = 378;

/** Adds a panel of a (depth × Rows) times one of b (depth × Vectors·lanes) to a tile, or sets the tile to it. */
template <typename Vector, int Rows, int Vectors>
INLINE void tile_product(int64_t depth, const float* a, const float* b, float* c, int64_t stride, bool add) {
  constexpr int lanes = sizeof(Vector) / sizeof(float);
  Vector sum[Rows][Vectors] = {};
#pragma GCC unroll 16
  for (int r = 0; r < Rows; r++) __builtin_prefetch(c + r * stride, 1);
  for (int64_t p = 0; p < depth; p++) {
    Vector row[Vectors];
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; v++) row[v] = *reinterpret_cast<const Vector*>(b + v * lanes);
#pragma GCC unroll 16
    for (int r = 0; r < Rows; r++)
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; v++) sum[r][v] += a[r] * row[v];
    a += Rows;
    b += Vectors * lanes;
  }
#pragma GCC unroll 16
  for (int r = 0; r < Rows; r++)
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; v++) {
      float* to = c + r * stride + v * lanes; // not aligned, so memcpy
      if (add) {
        Vector old;
        std::memcpy(&old, to, sizeof old);
        sum[r][v] += old;
      }
      std::memcpy(to, &sum[r][v], sizeof(Vector));
    }
}

/**
 * Transposes `rows` rows of `side` numbers into `side` rows of `side` numbers, which are `width` apart. In each of these,
 * the numbers after the first `rows` are 0.
 */
typedef void Transpose(const float* from, int64_t stride, int64_t rows, float* to, int64_t width);

/** The functions for one instruction set, and the size of the tile that fills its registers. */
struct Kernel {
  int64_t rows, columns;
  void (*run)(int64_t depth, const float* a, const float* b, float* c, int64_t stride, bool add);
  Transpose* transpose;
  int64_t side;         // of the square that it transposes
};

#if defined(__x86_64__) && defined(__GNUC__)
typedef float Float8 __attribute__((vector_size(32)));
typedef float Float16 __attribute__((vector_size(64)));

__attribute__((target("avx512f,fma"))) void tile_avx512(int64_t depth, const float* a, const float* b, float* c,
                                                        int64_t stride, bool add) {
  tile_product<Float16, 14, 2>(depth, a, b, c, stride, add);
}
__attribute__((target("avx2,fma"))) void tile_avx2(int64_t depth, const float* a, const float* b, float* c,
                                                   int64_t stride, bool add) {
  tile_product<Float8, 6, 2>(depth, a, b, c, stride, add);
}

__attribute__((target("avx512f"))) void transpose_avx512(const float* from, int64_t stride, int64_t rows, float* to,
                                                         int64_t width) {
  __m512 a[16], b[16];
  for (int i = 0; i < 16; i++) a[i] = i < rows ? _mm512_loadu_ps(from + i * stride) : _mm512_setzero_ps();
  for (int i = 0; i < 16; i += 2) { // pairs of numbers
    b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) // pairs of pairs
    for (int j = 0; j < 2; j++) {
      const __m512d low = _mm512_castps_pd(b[i + j]), high = _mm512_castps_pd(b[i + j + 2]);
      a[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
      a[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
    }
  for (int i = 0; i < 16; i += 8) // fours, from two groups of four rows
    for (int j = i; j < i + 4; j++) {
      b[j] = _mm512_shuffle_f32x4(a[j], a[j + 4], 0x88);
      b[j + 4] = _mm512_shuffle_f32x4(a[j], a[j + 4], 0xdd);
    }
  for (int j = 0; j < 8; j++) {
    a[j] = _mm512_shuffle_f32x4(b[j], b[j + 8], 0x88);
    a[j + 8] = _mm512_shuffle_f32x4(b[j], b[j + 8], 0xdd);
  }
  for (int i = 0; i < 16; i++) _mm512_storeu_ps(to + i * width, a[i]);
}

__attribute__((target("avx2"))) void transpose_avx2(const float* from, int64_t stride, int64_t rows, float* to,
                                                    int64_t width) {
  __m256 a[8], b[8];
  for (int i = 0; i < 8; i++) a[i] = i < rows ? _mm256_loadu_ps(from + i * stride) : _mm256_setzero_ps();
  for (int i = 0; i < 8; i += 2) { // pairs of numbers
    b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
    b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) // pairs of pairs
    for (int j = 0; j < 2; j++) {
      a[i + 2 * j] = _mm256_shuffle_ps(b[i + j], b[i + j + 2], 0x44);
      a[i + 2 * j + 1] = _mm256_shuffle_ps(b[i + j], b[i + j + 2], 0xee);
    }
  for (int i = 0; i < 4; i++) { // halves
    _mm256_storeu_ps(to + i * width, _mm256_permute2f128_ps(a[i], a[i + 4], 0x20));
    b[i] = _mm256_permute2f128_ps(a[i], a[i + 4], 0x31);
  }
  for (int i = 0; i < 4; i++) _mm256_storeu_ps(to + (i + 4) * width, b[i]);
}

Kernel choose() {
  if (lanes() == 16) return {14, 32, tile_avx512, transpose_avx512, 16};
  if (lanes() == 8) return {6, 16, tile_avx2, transpose_avx2, 8};
  return {};
}
#else
Kernel choose() { return {}; }
#endif

const Kernel kernel = choose();
/** The largest tile of all kernels. */
constexpr int64_t TALLEST = 14, WIDEST = 32;
static_assert(ROWS % 14 == 0 && ROWS % 6 == 0 && DEPTH % 16 == 0, "equal parts, rounded up to tiles and squares, are no larger");

/** Copies `filled` numbers of each of `depth` rows to rows of `width`, padded with zeros. */
void copy_rows(const float* from, int64_t stride, int64_t depth, int64_t filled, int64_t width, float* to) {
  const auto whole = [&](auto size) { // known at compile time: a few moves and no call
    for (int64_t i = 0; i < depth; i++) std::memcpy(to + i * size, from + i * stride, size * sizeof(float));
  };
  if (filled == width && width == 14) return whole(std::integral_constant<int64_t, 14>());
  if (filled == width && width == 32) return whole(std::integral_constant<int64_t, 32>());
  if (filled == width && width == 6) return whole(std::integral_constant<int64_t, 6>());
  if (filled == width && width == 16) return whole(std::integral_constant<int64_t, 16>());
  for (int64_t i = 0; i < depth; i++) {
    std::copy_n(from + i * stride, filled, to + i * width);
    std::fill_n(to + i * width + filled, width - filled, 0.0f);
  }
}

/**
 * Copies `count` rows of the data (columns if not `by_row`) starting at `first`, `depth` numbers each starting at `p`,
 * into panels of `width`. The last panel is padded with zeros.
 */
void pack(const Matrix& from, bool by_row, int64_t first, int64_t count, int64_t p, int64_t depth, int64_t width,
          float* to) {
  for (int64_t panel = 0; panel < count; panel += width) {
    const int64_t filled = std::min(width, count - panel);
    if (by_row) { // the depth runs along memory
      const float* source = from.data + (first + panel) * from.stride + p;
      // In squares. If a square extends beyond the panel, the excess of each row is overwritten by the next row.
      const int64_t side = kernel.side, blocks = depth / side * side;
      for (int64_t j = 0; j < width; j += side)
        for (int64_t i = 0; i < blocks; i += side)
          kernel.transpose(source + j * from.stride + i, from.stride, std::min(side, filled - j), to + i * width + j, width);
      for (int64_t i = blocks; i < depth; i++)
        for (int64_t j = 0; j < width; j++) to[i * width + j] = j < filled ? source[j * from.stride + i] : 0;
    } else {
      copy_rows(from.data + p * from.stride + first + panel, from.stride, depth, filled, width, to);
    }
    to += width * depth;
  }
}

int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

/** The size of equal parts of `size`: a multiple of `unit`, and at most `most`, itself a multiple of `unit`. */
int64_t part_of(int64_t size, int64_t most, int64_t unit) {
  const int64_t parts = (size + most - 1) / most;
  return round_up((size + parts - 1) / parts, unit);
}

/** Room for panels, aligned for vectors; each thread keeps its own. */
struct Workspace {
  alignas(64) float a[DEPTH * ROWS + WIDEST]; // the last transposed square reaches beyond its panel
  alignas(64) float b[DEPTH * WIDEST];
  alignas(64) float edge[TALLEST * WIDEST];
};
Workspace& workspace() {
  thread_local const auto memory = std::make_unique<Workspace>();
  return *memory;
}

/** A piece of b: `count` columns starting at `first`, and `depth` rows starting at `p`. */
struct Piece {
  int64_t first, count, p, depth;
};

/** Prefetches part `part` of `parts` of the source of a panel, if that consists of short stretches of memory. */
void prefetch(const Matrix& b, const Piece& piece, int64_t part, int64_t parts) {
  constexpr int64_t line = 16;
  if (!b.transposed) return;
  const int64_t lines = piece.depth / line, all = piece.count * lines;
  for (int64_t i = all * part / parts; i < all * (part + 1) / parts; i++)
    __builtin_prefetch(b.data + (piece.first + i / lines) * b.stride + piece.p + i % lines * line, 0, 2);
}

/** Computes the rows from m0 to m1 and the columns from n0 to n1 of the result. */
void block(int64_t m0, int64_t m1, int64_t n0, int64_t n1, int64_t n, int64_t k, const Matrix& a, const Matrix& b,
           float* c, const float* bias) {
  Workspace& room = workspace();
  const auto [rows, columns, run, transpose, side] = kernel;
  const int64_t height = part_of(m1 - m0, ROWS, rows), depth = part_of(k, DEPTH, side);
  const auto piece_at = [&](int64_t j, int64_t p) {
    return Piece{j, std::min(columns, n1 - j), p, std::min(depth, k - p)};
  };
  for (int64_t i = m0; i < m1; i += height) {
    const int64_t end = std::min(i + height, m1);
    for (int64_t p = 0; p < k; p += depth) {
      pack(a, !a.transposed, i, end - i, p, std::min(depth, k - p), rows, room.a);
      for (int64_t j = n0; j < n1; j += columns) {
        const Piece piece = piece_at(j, p);
        const bool last = j + columns >= n1, add = p > 0 || bias;
        const Piece next = last && p + depth >= k ? Piece{} : last ? piece_at(n0, p + depth) : piece_at(j + columns, p);
        pack(b, b.transposed, j, piece.count, p, piece.depth, columns, room.b);
        if (p == 0 && bias)
          for (int64_t row = i; row < end; row++) std::copy_n(bias + j, piece.count, c + row * n + j);
        for (int64_t x = i; x < end; x += rows) {
          const float* panel_a = room.a + (x - i) * piece.depth;
          float* tile = c + x * n + j;
          const int64_t tall = std::min(rows, end - x), wide = piece.count;
          prefetch(b, next, (x - i) / rows, (end - i + rows - 1) / rows);
          if (tall == rows && wide == columns) {
            run(piece.depth, panel_a, room.b, tile, n, add);
            continue;
          }
          run(piece.depth, panel_a, room.b, room.edge, columns, false);
          for (int64_t r = 0; r < tall; r++)
            for (int64_t s = 0; s < wide; s++)
              tile[r * n + s] = room.edge[r * columns + s] + (add ? tile[r * n + s] : 0);
        }
      }
    }
  }
}

}  // namespace

bool has_gemm() { return kernel.run != nullptr; }

void gemm(int64_t m, int64_t n, int64_t k, Matrix a, Matrix b, float* c, const float* bias) {
  // One block of the result for each thread, as square as possible: the amount of packing is the sum of its sides.
  const int64_t threads = m * n * k < (1 << 18) ? 1 : at::get_num_threads();
  int64_t down = 1;
  for (int64_t d = 1; d <= threads; d++)
    if (threads % d == 0 && m / d + n / (threads / d) < m / down + n / (threads / down)) down = d;
  const int64_t across = threads / down;
  const int64_t height = round_up((m + down - 1) / down, kernel.rows);
  const int64_t width = round_up((n + across - 1) / across, kernel.columns);
  at::parallel_for(0, threads, 1, [&](int64_t first, int64_t last) {
    for (int64_t t = first; t < last; t++) {
      const int64_t i = t / across * height, j = t % across * width;
      if (i < m && j < n) block(i, std::min(i + height, m), j, std::min(j + width, n), n, k, a, b, c, bias);
    }
  });
}

namespace {

/** y = x·weightᵀ + bias for x (…, in), weight (out, in). */
Tensor linear(const Tensor& x_, const Tensor& weight_, const c10::optional<Tensor>& bias) {
  if (!has_gemm()) return at::linear(x_, weight_, bias);
  const Tensor x = dense(x_), weight = dense(weight_);
  const int64_t k = weight.size(1), n = weight.size(0);
  auto shape = x.sizes().vec();
  TORCH_CHECK(shape.back() == k, "x (…, ", shape.back(), ") does not fit weight (", n, ", ", k, ")");
  shape.back() = n;
  Tensor y = at::empty(shape, x.options());
  const Tensor offset = bias.has_value() && bias->defined() ? dense(*bias) : Tensor();
  gemm(x.numel() / k, n, k, {in(x), k, false}, {in(weight), k, true}, out(y), offset.defined() ? in(offset) : nullptr);
  return y;
}

/** a·b for matrices, each optionally transposed first. */
Tensor product(const Tensor& a_, const Tensor& b_, bool transpose_a, bool transpose_b) {
  if (!has_gemm()) return at::mm(transpose_a ? a_.t() : a_, transpose_b ? b_.t() : b_);
  const Tensor a = dense(a_), b = dense(b_);
  const int64_t m = a.size(transpose_a), k = a.size(!transpose_a), n = b.size(!transpose_b);
  TORCH_CHECK(b.size(transpose_b) == k, "the inner sizes ", k, " and ", b.size(transpose_b), " differ");
  Tensor c = at::empty({m, n}, a.options());
  if (k == 0) return c.zero_();
  gemm(m, n, k, {in(a), a.size(1), transpose_a}, {in(b), b.size(1), transpose_b}, out(c), nullptr);
  return c;
}

/** Whether PyTorch multiplies bfloat16 matrices with oneDNN, which accumulates in float32, and this is fast here. */
bool has_bf16() {
#if defined(__x86_64__) && defined(__GNUC__)
  return __builtin_cpu_supports("avx512bf16") && at::hasMKLDNN();
#else
  return false;
#endif
}

TORCH_LIBRARY_FRAGMENT(alitok, library) {
  library.def("has_bf16() -> bool", has_bf16);
  library.def("linear(Tensor x, Tensor weight, Tensor? bias) -> Tensor", linear);
  library.def("product(Tensor a, Tensor b, bool transpose_a, bool transpose_b) -> Tensor", product);
}

}  // namespace
}  // namespace alitok
