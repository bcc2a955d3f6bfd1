// Draws codes from logits, one block per image.

constexpr u32 DRAW_WARPS = DRAW_THREADS / WARP;

/**
 * The sum over a block's threads, returned to every thread. It is double, because whether a code near the end is drawn depends
 * on the sum of the thousands before it.
 */
DEVICE double draw_sum(double x) {
  __shared__ double sums[DRAW_WARPS];
  for (u32 step = WARP / 2; step > 0; step /= 2) x += __shfl_xor_sync(ALL_LANES, x, step);
  __syncthreads();
  if (lane() == 0) sums[warp_in_block()] = x;
  __syncthreads();
  double total = 0;
  for (u32 i = 0; i < DRAW_WARPS; i++) total += sums[i];
  return total;
}

/** The sum over the threads before this one. */
DEVICE double draw_sum_before(double x) {
  __shared__ double sums[DRAW_WARPS];
  double through = x;
  for (u32 step = 1; step < WARP; step *= 2) {
    const double other = __shfl_up_sync(ALL_LANES, through, step);
    if (lane() >= step) through += other;
  }
  __syncthreads();
  if (lane() == WARP - 1) sums[warp_in_block()] = through;
  __syncthreads();
  double before = through - x;
  for (u32 i = 0; i < warp_in_block(); i++) before += sums[i];
  return before;
}

/** The maximum over a block's threads, returned to every thread. */
DEVICE u64 draw_max(u64 x) {
  __shared__ u64 found[DRAW_WARPS];
  for (u32 step = WARP / 2; step > 0; step /= 2) {
    const u64 other = __shfl_xor_sync(ALL_LANES, x, step);
    x = other > x ? other : x;
  }
  __syncthreads();
  if (lane() == 0) found[warp_in_block()] = x;
  __syncthreads();
  for (u32 i = 0; i < DRAW_WARPS; i++) x = found[i] > x ? found[i] : x;
  return x;
}

/**
 * Combines a number and its index into a key for sorting. A larger number has a larger key; of equal numbers, the one with the
 * smaller index has. NaN has the largest key.
 */
DEVICE u64 rank(float x, u32 index) {
  const u32 bits = __float_as_uint(x == 0 ? 0 : x); // −0 is 0
  const u32 order = x != x ? 0xffffffffu : bits >> 31 ? ~bits : bits | 0x80000000u;
  return static_cast<u64>(order) << 32 | (0xffffffffu - index);
}
DEVICE u32 index_of(u64 rank) { return 0xffffffffu - static_cast<u32>(rank); }

/**
 * The largest rank r for which Σ measure(weight), over all weights of at least rank r and at least rank `least`, reaches
 * `limit`; 0 if no rank does. Found bit by bit.
 */
template <typename Measure>
DEVICE u64 reaching(const float* weights, u32 first, u32 last, u64 least, double limit, Measure measure) {
  u64 found = 0;
  for (u64 bit = static_cast<u64>(1) << 63; bit > 0; bit >>= 1) {
    const u64 tried = found | bit;
    double sum = 0;
    for (u32 i = first; i < last; i++) {
      const u64 own = rank(weights[i], i);
      if (own >= tried && own >= least) sum += measure(weights[i]);
    }
    if (draw_sum(sum) >= limit) found = tried;
  }
  return found;
}

/**
 * Draws the codes of one step. logits (images, entries) or, with guidance, (2·images, entries): first with the class, then
 * without, mixed by scales[position]. uniforms (steps, images). Writes codes (images, steps) at `position`, and ids (images or
 * 2·images), the input of the next step. `weights` (images, entries) is workspace.
 */
template <typename T>
DEVICE void draw(const T* logits, const float* uniforms, const float* scales, const int* position, float* weights, int* ids,
                 int* codes, const Draw& draw) {
  const u32 image = blockIdx.x, n = draw.entries, at = *position;
  const T* row = logits + static_cast<i64>(image) * n;
  const T* free = row + static_cast<i64>(draw.images) * n;
  weights += static_cast<i64>(image) * n;
  // Each thread has its own contiguous range of entries.
  const u32 share = (n + DRAW_THREADS - 1) / DRAW_THREADS;
  const u32 first = threadIdx.x * share < n ? threadIdx.x * share : n, last = first + share < n ? first + share : n;

  u64 best = 0;
  for (u32 i = first; i < last; i++) {
    float x = to_float(row[i]);
    if (scales) {
      const float other = to_float(free[i]);
      x = other + (x - other) * scales[at];
    }
    weights[i] = x;
    const u64 own = rank(x, i);
    best = own > best ? own : best;
  }
  best = draw_max(best); // its barriers also make all weights visible to all threads
  u32 code = index_of(best);

  if (draw.temperature != 0) {
    const float top = weights[code];
    __syncthreads(); // all threads have read it
    for (u32 i = first; i < last; i++) weights[i] = expf((weights[i] - top) / draw.temperature);
    u64 least = 0;
    if (draw.top_k > 0 && draw.top_k < n)
      least = reaching(weights, first, last, 0, draw.top_k, [](float) { return 1.0; });
    const auto weight = [](float x) { return static_cast<double>(x); };
    if (draw.top_p < 1) {
      double sum = 0;
      for (u32 i = first; i < last; i++)
        if (rank(weights[i], i) >= least) sum += weights[i];
      const u64 cut = reaching(weights, first, last, least, draw.top_p * draw_sum(sum), weight);
      least = cut > least ? cut : least;
    }
    double own = 0;
    for (u32 i = first; i < last; i++)
      if (rank(weights[i], i) >= least) own += weights[i];
    const double wanted = uniforms[static_cast<i64>(at) * draw.images + image] * draw_sum(own);
    double sum = draw_sum_before(own);
    u64 found = 0;
    for (u32 i = first; i < last && found == 0; i++) {
      if (rank(weights[i], i) < least) continue;
      sum += weights[i];
      if (sum > wanted) found = 0xffffffffu - i;
    }
    found = draw_max(found);
    if (found > 0) code = index_of(found); // otherwise rounding left a remainder, or the sum is NaN
  }
  if (threadIdx.x == 0) {
    codes[static_cast<i64>(image) * draw.steps + at] = code;
    ids[image] = code;
    if (scales) ids[draw.images + image] = code;
  }
}
KERNEL draw_f(const float* logits, const float* uniforms, const float* scales, const int* position, float* weights, int* ids,
              int* codes, Draw options) {
  draw(logits, uniforms, scales, position, weights, ids, codes, options);
}
KERNEL draw_h(const bf16* logits, const float* uniforms, const float* scales, const int* position, float* weights, int* ids,
              int* codes, Draw options) {
  draw(logits, uniforms, scales, position, weights, ids, codes, options);
}
