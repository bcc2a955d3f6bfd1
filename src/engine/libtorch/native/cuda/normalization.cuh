// RMSNorm and, if CENTRED, LayerNorm over rows of d elements, one warp per row, and their gradients.

/** The statistics that a row is normalised with. */
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
  // If the variance overflows, LayerNorm would give a row of zeros. `variance - variance` makes it NaN instead.
  return {mean, 1 / sqrtf(variance + epsilon) + (CENTRED ? variance - variance : 0)};
}

template <bool CENTRED, typename X, typename Y>
DEVICE void norm(const X* x, const float* weight, const float* bias, Y* y, i64 rows, u32 d, float epsilon) {
  const i64 row = static_cast<i64>(blockIdx.x) * warps_of_block() + warp_in_block();
  if (row >= rows) return; // the whole warp returns
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

/** Adds up the sums of a block's warps, `columns` per warp, and writes the result to the block's row of `partial`. */
DEVICE void add_up(const float* sums, float* partial, u32 columns) {
  __syncthreads();
  for (u32 i = threadIdx.x; i < columns; i += blockDim.x) {
    float sum = 0;
    for (u32 warp = 0; warp < warps_of_block(); warp++) sum += sums[warp * columns + i];
    partial[static_cast<i64>(blockIdx.x) * columns + i] = sum;
  }
}

/**
 * Writes dx, and to `partial` (blocks, 1 or, if CENTRED, 2, d) the contribution of each block's rows to the gradients of weight
 * and bias. Each warp has its own part of `sums`, and each lane its own columns there, so no barrier is needed before the end.
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
  add_up(sums, partial, columns);
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

// RMSNorm and rotary embedding of head vectors: x (B, T, H, D) → the same shape, one warp per vector. The vectors need not be
// adjacent in memory: q, k and v of one projection are not.

/** Offset of vector `i`, counted in the order (B, T, H). */
DEVICE i64 place(const Vectors& all, const Apart& apart, i64 i) {
  const i64 token = i / all.heads;
  return token / all.tokens * apart.batch + token % all.tokens * apart.token + i % all.heads * apart.head;
}

template <typename T>
DEVICE void norm_rotary(const T* x, const float* weight, const float* cos, const float* sin, T* y, const Vectors& all,
                        const Apart& from, const Apart& to) {
  const i64 i = static_cast<i64>(blockIdx.x) * warps_of_block() + warp_in_block();
  if (i >= all.count) return;
  x += place(all, from, i);
  y += place(all, to, i);
  const float scale = moments<false>(x, all.width, all.epsilon).scale;
  const u32 angle = static_cast<u32>(i / all.heads % all.tokens) * (all.width / 2);
  for (u32 pair = lane(); pair < all.width / 2; pair += WARP) {
    const float even = to_float(x[2 * pair]) * scale * weight[2 * pair];
    const float odd = to_float(x[2 * pair + 1]) * scale * weight[2 * pair + 1];
    const float c = cos[angle + pair], s = sin[angle + pair];
    assign(y[2 * pair], even * c - odd * s);
    assign(y[2 * pair + 1], odd * c + even * s);
  }
}
KERNEL norm_rotary_f(const float* x, const float* weight, const float* cos, const float* sin, float* y, Vectors all, Apart from,
                     Apart to) {
  norm_rotary(x, weight, cos, sin, y, all, from, to);
}
KERNEL norm_rotary_h(const bf16* x, const float* weight, const float* cos, const float* sin, bf16* y, Vectors all, Apart from,
                     Apart to) {
  norm_rotary(x, weight, cos, sin, y, all, from, to);
}

/** Gradient of norm_rotary, with `partial` as in norm_grad. dx (B, T, H, D) is contiguous. */
template <typename DY, typename X>
DEVICE void norm_rotary_grad(const DY* dy, const X* x, const float* weight, const float* cos, const float* sin, X* dx,
                             float* partial, const Vectors& all, const Apart& from, const Apart& through) {
  DYNAMIC_SHARED(sums);
  const u32 d = all.width, warps = warps_of_block();
  float* own = sums + warp_in_block() * d;
  for (u32 pair = lane(); pair < d / 2; pair += WARP) own[2 * pair] = own[2 * pair + 1] = 0;
  for (i64 i = static_cast<i64>(blockIdx.x) * warps + warp_in_block(); i < all.count; i += static_cast<i64>(gridDim.x) * warps) {
    const X* v = x + place(all, from, i);
    const DY* g = dy + place(all, through, i);
    const float scale = moments<false>(v, d, all.epsilon).scale;
    const u32 angle = static_cast<u32>(i / all.heads % all.tokens) * (d / 2);
    // The gradient, rotated back.
    const auto back = [&](u32 pair, float& even, float& odd) {
      const float a = to_float(g[2 * pair]), b = to_float(g[2 * pair + 1]), c = cos[angle + pair], s = sin[angle + pair];
      even = a * c + b * s;
      odd = b * c - a * s;
    };
    float along = 0, even, odd;
    for (u32 pair = lane(); pair < d / 2; pair += WARP) {
      back(pair, even, odd);
      along += even * weight[2 * pair] * to_float(v[2 * pair]) + odd * weight[2 * pair + 1] * to_float(v[2 * pair + 1]);
    }
    along = warp_sum(along) * scale * scale / d;
    for (u32 pair = lane(); pair < d / 2; pair += WARP) {
      back(pair, even, odd);
      const float a = to_float(v[2 * pair]), b = to_float(v[2 * pair + 1]);
      own[2 * pair] += even * a * scale;
      own[2 * pair + 1] += odd * b * scale;
      assign(dx[i * d + 2 * pair], (even * weight[2 * pair] - a * along) * scale);
      assign(dx[i * d + 2 * pair + 1], (odd * weight[2 * pair + 1] - b * along) * scale);
    }
  }
  add_up(sums, partial, d);
}
#define NORM_ROTARY_GRAD(y, x, Y, X)                                                                                          \
  KERNEL norm_rotary_grad_##y##x(const Y* dy, const X* in, const float* weight, const float* cos, const float* sin, X* dx,    \
                                 float* partial, Vectors all, Apart from, Apart through) {                                    \
    norm_rotary_grad(dy, in, weight, cos, sin, dx, partial, all, from, through);                                              \
  }
NORM_ROTARY_GRAD(f, f, float, float)
NORM_ROTARY_GRAD(f, h, float, bf16)
NORM_ROTARY_GRAD(h, f, bf16, float)
NORM_ROTARY_GRAD(h, h, bf16, bf16)
#undef NORM_ROTARY_GRAD
