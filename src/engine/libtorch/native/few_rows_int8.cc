// Products of few rows with 8-bit weights, on processors with dot products of bytes (AVX-512 VNNI): converting the weights
// to floats first would take longer than reading them. Each number of x becomes two bytes, x ≈ unit·(256·high + low). The
// instruction needs an unsigned second factor, so 128 is added to each weight and 128·Σx is subtracted from the sum.
#include "few_rows_int8.h"

#include <vector>

#include "simd.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define VNNI __attribute__((target("avx512f,fma,avx512vnni")))

namespace alitok {
namespace {

/** Weights in a vector; its word l has weights l, 16 + l, 32 + l and 48 + l, in the order of `pack_int8`. */
constexpr int64_t GROUP = 64;
/** 127·256 + 127: the largest number that two signed bytes can hold. */
constexpr float LARGEST = 32639;
/** The widest layers for which 256·high + low still fits into 32 bits. */
constexpr int64_t WIDEST = 4096;

/** A row of x in bytes: for each group its high bytes, then its low ones. */
struct ByteRow {
  const int8_t* bytes;
  float unit, offset; // x ≈ unit·(256·high + low); 128·Σ(256·high + low)
};

VNNI float largest_of(const float* x, int64_t n) {
  __m512i most = _mm512_setzero_si512(); // of the bits: infinity is above all finite numbers, and NaN is above infinity
  for (int64_t i = 0; i < n; i += 16)
    most = _mm512_max_epi32(most, _mm512_and_si512(_mm512_castps_si512(_mm512_loadu_ps(x + i)), _mm512_set1_epi32(0x7fffffff)));
  const int32_t bits = _mm512_reduce_max_epi32(most);
  float largest;
  std::memcpy(&largest, &bits, sizeof largest);
  return largest;
}

VNNI ByteRow to_bytes(const float* x, int64_t n, int8_t* bytes) {
  const float largest = largest_of(x, n);
  const bool tiny = largest < 1e-30f; // their inverse would be infinite
  const __m512 inverse = _mm512_set1_ps(tiny || !std::isfinite(largest) ? 0 : LARGEST / largest);
  const __m512i byte = _mm512_set1_epi32(255);
  __m512i sum = _mm512_setzero_si512();
  for (int64_t i = 0; i < n; i += GROUP) {
    __m512i highs = _mm512_setzero_si512(), lows = highs;
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
      const __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + i + 16 * j), inverse));
      const __m512i low = _mm512_srai_epi32(_mm512_slli_epi32(q, 24), 24);
      const __m512i high = _mm512_srai_epi32(_mm512_sub_epi32(q, low), 8);
      lows = _mm512_or_si512(lows, _mm512_slli_epi32(_mm512_and_si512(low, byte), 8 * j));
      highs = _mm512_or_si512(highs, _mm512_slli_epi32(_mm512_and_si512(high, byte), 8 * j));
      sum = _mm512_add_epi32(sum, q);
    }
    _mm512_storeu_si512(bytes + 2 * i, highs);
    _mm512_storeu_si512(bytes + 2 * i + GROUP, lows);
  }
  return {bytes, tiny ? 0 : largest / LARGEST * (std::isfinite(largest) ? 1 : NAN), 128.0f * _mm512_reduce_add_epi32(sum)};
}

struct Problem {
  const ByteRow* x;
  int64_t rows;
  const FewRowsLayer& layer;
  float* y;
};

/** Multiplies `Rows` rows, starting at `row`, with `Outputs` rows of the weight, starting at `output` and `apart` apart. */
template <int Rows, int Outputs>
VNNI void products(const Problem& problem, int64_t row, int64_t output, int64_t apart) {
  const auto& [weight, type, scale, bias, outputs, n] = problem.layer;
  const ByteRow* x = problem.x + row;
  const int8_t* w = static_cast<const int8_t*>(weight) + output * n;
  // The first of several passes over the same weights would wait for memory, so each pass prefetches some of the next.
  const bool several = problem.rows > Rows;
  const int8_t* ahead = w + (row / Rows % Outputs * apart + 1) * n;
  constexpr int count = Rows * Outputs, whole = (count + 15) / 16 * 16;
  __m512i high[count], low[count];
  for (int i = 0; i < count; i++) high[i] = low[i] = _mm512_setzero_si512();
  for (int64_t i = 0; i < n; i += GROUP) {
    if (several) __builtin_prefetch(ahead + i, 0, 1);
    __m512i weights[Outputs];
#pragma GCC unroll 4
    for (int o = 0; o < Outputs; o++)
      weights[o] = _mm512_xor_si512(_mm512_loadu_si512(w + o * apart * n + i), _mm512_set1_epi8(-128));
#pragma GCC unroll 2
    for (int r = 0; r < Rows; r++) {
      const __m512i highs = _mm512_loadu_si512(x[r].bytes + 2 * i), lows = _mm512_loadu_si512(x[r].bytes + 2 * i + GROUP);
#pragma GCC unroll 4
      for (int o = 0; o < Outputs; o++) {
        high[r * Outputs + o] = _mm512_dpbusd_epi32(high[r * Outputs + o], weights[o], highs);
        low[r * Outputs + o] = _mm512_dpbusd_epi32(low[r * Outputs + o], weights[o], lows);
      }
    }
  }
  Floats<16> sum[whole] = {};
#pragma GCC unroll 8
  for (int i = 0; i < count; i++)
    sum[i] = reinterpret_cast<Floats<16>>(_mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32(high[i], 8), low[i])));
  const Floats<16> sums = sums_of_lanes<16>(sum);
  for (int i = 0; i < count; i++) {
    const int64_t at = output + i % Outputs * apart;
    const auto& [bytes, unit, offset] = x[i / Outputs];
    problem.y[(row + i / Outputs) * outputs + at] = (sums[i] - offset) * (unit * scale[at]) + (bias ? bias[at] : 0);
  }
}

template <int Outputs>
void all_rows(const Problem& problem, int64_t output, int64_t apart) {
  int64_t row = 0;
  for (; row + 2 <= problem.rows; row += 2) products<2, Outputs>(problem, row, output, apart);
  if (row < problem.rows) products<1, Outputs>(problem, row, output, apart);
}

}  // namespace

bool multiplies_bytes(const FewRowsLayer& layer) {
  static const bool has = lanes() == 16 && __builtin_cpu_supports("avx512vnni");
  return has && layer.n <= WIDEST;
}

void few_rows_bytes(const float* x, int64_t rows, const FewRowsLayer& layer, int64_t first, int64_t last, float* y) {
  thread_local std::vector<int8_t> bytes;
  thread_local std::vector<ByteRow> byte_rows;
  bytes.resize(2 * rows * layer.n);
  byte_rows.resize(rows);
  for (int64_t row = 0; row < rows; row++)
    byte_rows[row] = to_bytes(x + row * layer.n, layer.n, &bytes[2 * row * layer.n]);
  const Problem problem{byte_rows.data(), rows, layer, y};
  constexpr int together = 4;
  const int64_t apart = (last - first) / together; // each is read in memory order, as in few_rows.cc
  for (int64_t output = first; output < first + apart; output++) all_rows<together>(problem, output, apart);
  for (int64_t output = first + together * apart; output < last; output++) all_rows<1>(problem, output, 0);
}

}  // namespace alitok
#else
namespace alitok {

bool multiplies_bytes(const FewRowsLayer&) { return false; }
void few_rows_bytes(const float*, int64_t, const FewRowsLayer&, int64_t, int64_t, float*) {}

}  // namespace alitok
#endif
