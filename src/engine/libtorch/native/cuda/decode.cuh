// Kernels of a decoding step, apart from its matrix products. They read the position from device memory, so that a step can be
// captured once and then replayed.

/** Warps per block in these kernels. */
constexpr u32 WARPS = DECODE_THREADS / WARP;
/** Keys that a warp processes at a time. */
constexpr u32 TOGETHER = 4;

/** The sum over all threads of a block, returned to every thread. */
DEVICE float block_sum(float x) {
  __shared__ float sums[WARPS];
  x = warp_sum(x);
  __syncthreads(); // other threads may still be reading the previous sums
  if (lane() == 0) sums[warp_in_block()] = x;
  __syncthreads();
  float total = 0;
  for (u32 i = 0; i < warps_of_block(); i++) total += sums[i];
  return total;
}

/** h = x + delta, n = rmsNorm(h), one block per row. Without a delta, n = rmsNorm(x) and h is not written. h may be x. */
template <typename T>
DEVICE void add_norm(const float* x, const T* delta, const float* weight, float* h, T* n, u32 d, float epsilon) {
  const i64 row = static_cast<i64>(blockIdx.x) * d;
  float squares = 0;
  for (u32 i = threadIdx.x; i < d; i += blockDim.x) {
    const float sum = x[row + i] + (delta ? to_float(delta[row + i]) : 0);
    if (delta) h[row + i] = sum;
    squares += sum * sum;
  }
  const float scale = 1 / sqrtf(block_sum(squares) / d + epsilon);
  const float* from = delta ? h : x;
  // Each thread reads only those elements of h that it has written itself.
  for (u32 i = threadIdx.x; i < d; i += blockDim.x) assign(n[row + i], from[row + i] * scale * weight[i]);
}
KERNEL add_norm_f(const float* x, const float* delta, const float* weight, float* h, float* n, u32 d, float epsilon) {
  add_norm(x, delta, weight, h, n, d, epsilon);
}
KERNEL add_norm_h(const float* x, const bf16* delta, const float* weight, float* h, bf16* n, u32 d, float epsilon) {
  add_norm(x, delta, weight, h, n, d, epsilon);
}

/** silu(gate)·value: x (rows, 2·hidden) → y (rows, hidden). Each row of x has `hidden` gates, then `hidden` values. */
template <typename T>
DEVICE void swiglu_joined(const T* x, T* y, i64 n, u32 hidden) {
  const i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const i64 gate = i / hidden * 2 * hidden + i % hidden;
  assign(y[i], silu(to_float(x[gate])) * to_float(x[gate + hidden]));
}
KERNEL swiglu_joined_f(const float* x, float* y, i64 n, u32 hidden) { swiglu_joined(x, y, n, hidden); }
KERNEL swiglu_joined_h(const bf16* x, bf16* y, i64 n, u32 hidden) { swiglu_joined(x, y, n, hidden); }

/** Normalises and rotates the vector of one head, with one warp. */
template <typename T>
DEVICE void prepare(const T* x, const float* weight, const float* cos, const float* sin, float* to, u32 width, float epsilon) {
  float squares = 0;
  for (u32 i = lane(); i < width; i += WARP) squares += to_float(x[i]) * to_float(x[i]);
  const float scale = 1 / sqrtf(warp_sum(squares) / width + epsilon);
  for (u32 i = lane(); i < width / 2; i += WARP) {
    const float even = to_float(x[2 * i]) * scale * weight[2 * i], odd = to_float(x[2 * i + 1]) * scale * weight[2 * i + 1];
    to[2 * i] = even * cos[i] - odd * sin[i];
    to[2 * i + 1] = odd * cos[i] + even * sin[i];
  }
}

/**
 * Attention of the query at `position`, one block per head of each row: normalises and rotates q and k, writes k and v to the
 * caches, and attends over them. qkv (rows, 3, heads, width) → y (rows, heads, width).
 */
template <typename T, typename C>
DEVICE void attend(const T* qkv, const float* q_norm, const float* k_norm, const float* cos, const float* sin,
                   const int* position, C* k_cache, C* v_cache, T* y, const Heads& sizes) {
  __shared__ float q[MOST_WIDTH], k[MOST_WIDTH], largest[WARPS], total[WARPS], sums[WARPS][MOST_WIDTH];
  const u32 width = sizes.width, at = *position, warp = warp_in_block();
  const i64 stride = static_cast<i64>(sizes.heads) * width, head = blockIdx.x % sizes.heads, row = blockIdx.x / sizes.heads;
  qkv += row * 3 * stride + head * width;
  y += row * stride + head * width;
  k_cache += row * sizes.longest * stride + head * width;
  v_cache += row * sizes.longest * stride + head * width;
  cos += at * (width / 2);
  sin += at * (width / 2);
  if (warp == 0) prepare(qkv, q_norm, cos, sin, q, width, sizes.epsilon);
  if (warp == 1) {
    prepare(qkv + stride, k_norm, cos, sin, k, width, sizes.epsilon);
    __syncwarp();
    for (u32 i = lane(); i < width; i += WARP) assign(k_cache[at * stride + i], k[i]);
  }
  if (warp == 2)
    for (u32 i = lane(); i < width; i += WARP) assign(v_cache[at * stride + i], to_float(qkv[2 * stride + i]));
  __syncthreads();

  // Each warp processes some of the keys. Its weighted sum of values is relative to its largest score so far.
  constexpr u32 OWN = MOST_WIDTH / WARP;
  const float scale = 1 / sqrtf(static_cast<float>(width));
  float best = -INFINITE, weight = 0, sum[OWN] = {};
  for (u32 first = warp * TOGETHER; first <= at; first += WARPS * TOGETHER) {
    float score[TOGETHER], top = best;
    for (u32 t = 0; t < TOGETHER; t++) {
      float product = 0;
      if (first + t <= at)
        for (u32 i = lane(); i < width; i += WARP) product += q[i] * to_float(k_cache[(first + t) * stride + i]);
      score[t] = warp_sum(product) * scale;
      if (first + t <= at) top = fmaxf(top, score[t]);
    }
    const float before = best == top ? 1 : expf(best - top);
    weight *= before;
    for (u32 j = 0; j < OWN; j++) sum[j] *= before;
    for (u32 t = 0; t < TOGETHER && first + t <= at; t++) {
      const float p = expf(score[t] - top);
      weight += p;
      for (u32 j = 0, i = lane(); i < width; j++, i += WARP) sum[j] += p * to_float(v_cache[(first + t) * stride + i]);
    }
    best = top;
  }
  if (lane() == 0) {
    largest[warp] = best;
    total[warp] = weight;
  }
  for (u32 j = 0, i = lane(); i < width; j++, i += WARP) sums[warp][i] = sum[j];
  __syncthreads();

  float top = -INFINITE, whole = 0;
  for (u32 w = 0; w < WARPS; w++) top = fmaxf(top, largest[w]);
  for (u32 w = 0; w < WARPS; w++) whole += total[w] > 0 || total[w] != total[w] ? total[w] * expf(largest[w] - top) : 0;
  for (u32 i = threadIdx.x; i < width; i += blockDim.x) {
    float value = 0;
    for (u32 w = 0; w < WARPS; w++)
      if (total[w] > 0 || total[w] != total[w]) value += sums[w][i] * expf(largest[w] - top);
    assign(y[i], value / whole);
  }
}
#define ATTEND(t, c, T, C)                                                                                                    \
  KERNEL attend_##t##c(const T* qkv, const float* q_norm, const float* k_norm, const float* cos, const float* sin,            \
                       const int* position, C* k_cache, C* v_cache, T* y, Heads sizes) {                                      \
    attend(qkv, q_norm, k_norm, cos, sin, position, k_cache, v_cache, y, sizes);                                              \
  }
ATTEND(f, f, float, float)
ATTEND(h, f, bf16, float)
ATTEND(h, h, bf16, bf16)
#undef ATTEND
