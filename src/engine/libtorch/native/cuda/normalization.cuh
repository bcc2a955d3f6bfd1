// RMSNorm and, CENTRED, LayerNorm over rows of d numbers, a warp to a row, and their gradients.

/** What a row is normalised with. */
struct Moments {
  float mean, scale; // the mean is 0 unless CENTRED; the scale is 1/√(variance + ε)
};

template <bool CENTRED, typename X>
DEVICE Moments moments(const X* x, u32 d, float epsilon) {
  float mean = 0, squares = 0, v[4];
  if (CENTRED) {
    for (u32 i = 4 * lane(); i < d; i += 4 * WARP) {
      load(x, i, d, v);
      mean += v[0] + v[1] + v[2] + v[3];
    }
    mean = warp_sum(mean) / d;
  }
  for (u32 i = 4 * lane(); i < d; i += 4 * WARP) {
    load(x, i, d, v);
    for (int j = 0; j < 4; j++)
      if (i + j < d) squares += (v[j] - mean) * (v[j] - mean);
  }
  const float variance = warp_sum(squares) / d;
  // A variance beyond all floats would make LayerNorm's row zeros; it is to be NaN.
  return {mean, 1 / sqrtf(variance + epsilon) + (CENTRED ? variance - variance : 0)};
}

template <bool CENTRED, typename X, typename Y>
DEVICE void norm(const X* x, const float* weight, const float* bias, Y* y, i64 rows, u32 d, float epsilon) {
  const i64 row = static_cast<i64>(blockIdx.x) * warps_of_block() + warp_in_block();
  if (row >= rows) return; // the whole warp
  x += row * d;
  y += row * d;
  const Moments m = moments<CENTRED>(x, d, epsilon);
  float v[4], w[4], b[4] = {0, 0, 0, 0};
  for (u32 i = 4 * lane(); i < d; i += 4 * WARP) {
    load(x, i, d, v);
    load(weight, i, d, w);
    if (CENTRED) load(bias, i, d, b);
    for (int j = 0; j < 4; j++) v[j] = (v[j] - m.mean) * m.scale * w[j] + b[j];
    store(y, i, d, v);
  }
}

/**
 * Writes dx, and into `partial` (blocks, 1 or CENTRED 2, d) what the rows of each block add to the gradients of weight and bias.
 * Each warp adds up its rows in `sums`, of the size of its block's part of `partial` for each warp; a lane always has the same
 * columns, so only the end is a matter of several.
 */
template <bool CENTRED, typename DY, typename X>
DEVICE void norm_grad(const DY* dy, const X* x, const float* weight, X* dx, float* partial, i64 rows, u32 d, float epsilon) {
  DYNAMIC_SHARED(sums);
  const u32 columns = CENTRED ? 2 * d : d, warps = warps_of_block();
  float* own = sums + warp_in_block() * columns;
  for (u32 i = 4 * lane(); i < d; i += 4 * WARP)
    for (u32 j = i; j < i + 4 && j < d; j++) {
      own[j] = 0;
      if (CENTRED) own[d + j] = 0;
    }
  for (i64 row = static_cast<i64>(blockIdx.x) * warps + warp_in_block(); row < rows; row += static_cast<i64>(gridDim.x) * warps) {
    const X* from = x + row * d;
    const DY* g = dy + row * d;
    const Moments m = moments<CENTRED>(from, d, epsilon);
    float v[4], w[4], e[4], along = 0, mean = 0;
    for (u32 i = 4 * lane(); i < d; i += 4 * WARP) {
      load(from, i, d, v);
      load(g, i, d, e);
      load(weight, i, d, w);
      for (int j = 0; j < 4; j++) {
        along += e[j] * w[j] * (v[j] - m.mean);
        mean += e[j] * w[j];
      }
    }
    along = warp_sum(along) * m.scale * m.scale / d;
    mean = CENTRED ? warp_sum(mean) / d : 0;
    for (u32 i = 4 * lane(); i < d; i += 4 * WARP) {
      load(from, i, d, v);
      load(g, i, d, e);
      load(weight, i, d, w);
      for (int j = 0; j < 4; j++) {
        v[j] -= m.mean;
        if (i + j < d) {
          own[i + j] += e[j] * v[j] * m.scale;
          if (CENTRED) own[d + i + j] += e[j];
        }
        v[j] = (e[j] * w[j] - mean - v[j] * along) * m.scale;
      }
      store(dx + row * d, i, d, v);
    }
  }
  __syncthreads();
  for (u32 i = threadIdx.x; i < columns; i += blockDim.x) {
    float sum = 0;
    for (u32 warp = 0; warp < warps; warp++) sum += sums[warp * columns + i];
    partial[static_cast<i64>(blockIdx.x) * columns + i] = sum;
  }
}

#define NORMS(x, y, X, Y)                                                                                                     \
  KERNEL rms_norm_##x##y(const X* in, const float* weight, const float* bias, Y* out, i64 rows, u32 d, float epsilon) {       \
    norm<false>(in, weight, bias, out, rows, d, epsilon);                                                                     \
  }                                                                                                                           \
  KERNEL layer_norm_##x##y(const X* in, const float* weight, const float* bias, Y* out, i64 rows, u32 d, float epsilon) {     \
    norm<true>(in, weight, bias, out, rows, d, epsilon);                                                                      \
  }                                                                                                                           \
  KERNEL rms_norm_grad_##y##x(const Y* dy, const X* in, const float* weight, X* dx, float* partial, i64 rows, u32 d,          \
                              float epsilon) {                                                                                \
    norm_grad<false>(dy, in, weight, dx, partial, rows, d, epsilon);                                                          \
  }                                                                                                                           \
  KERNEL layer_norm_grad_##y##x(const Y* dy, const X* in, const float* weight, X* dx, float* partial, i64 rows, u32 d,        \
                                float epsilon) {                                                                              \
    norm_grad<true>(dy, in, weight, dx, partial, rows, d, epsilon);                                                           \
  }
NORMS(f, f, float, float)
NORMS(f, h, float, bf16)
NORMS(h, f, bf16, float)
NORMS(h, h, bf16, bf16)
#undef NORMS
