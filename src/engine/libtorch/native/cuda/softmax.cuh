// Attention between its matrix products: softmax of the scaled scores q·kᵀ, with the causal mask and dropout, one warp per row
// of keys. A masked score counts as −∞, whatever its value, and so do the elements of a row after its keys.

DEVICE u32 visible(const Sight& sight, i64 row) {
  return sight.causal ? sight.keys - sight.queries + static_cast<u32>(row % sight.queries) + 1 : sight.keys;
}

/** The largest score of a row, and the sum of exp((score − largest)·scale) over the row. */
struct Peak {
  float score, sum;
};

template <typename T>
DEVICE Peak peak(const T* scores, u32 seen, float scale) {
  float largest = -INFINITE, sum = 0;
  for (u32 i = lane(); i < seen; i += WARP) largest = fmaxf(largest, to_float(scores[i]));
  largest = warp_max(largest);
  for (u32 i = lane(); i < seen; i += WARP) sum += expf((to_float(scores[i]) - largest) * scale);
  return {largest, warp_sum(sum)};
}

DEVICE float factor(const Sight& sight, i64 row, u32 i) {
  return sight.threshold == 0 ? 1 : kept(static_cast<u32>(row * sight.keys + i), sight.seed, sight.threshold, sight.keep);
}

/** Replaces scores by the attention weights after dropout, in place. */
template <typename T>
DEVICE void softmax(T* scores, const Sight& sight) {
  const i64 row = static_cast<i64>(blockIdx.x) * warps_of_block() + warp_in_block();
  if (row >= sight.rows) return;
  scores += row * sight.stride;
  const u32 seen = visible(sight, row);
  const Peak top = peak(scores, seen, sight.scale);
  for (u32 i = lane(); i < sight.stride; i += WARP) {
    const float p = i < seen ? expf((to_float(scores[i]) - top.score) * sight.scale) / top.sum * factor(sight, row, i) : 0;
    assign(scores[i], p);
  }
}
KERNEL softmax_f(float* scores, Sight sight) { softmax(scores, sight); }
KERNEL softmax_h(bf16* scores, Sight sight) { softmax(scores, sight); }

/**
 * Replaces scores by weights as above, and dp, the gradient with respect to these weights, by the gradient with respect to
 * q·kᵀ; both in place.
 */
template <typename T>
DEVICE void softmax_grad(T* scores, T* dp, const Sight& sight) {
  const i64 row = static_cast<i64>(blockIdx.x) * warps_of_block() + warp_in_block();
  if (row >= sight.rows) return;
  scores += row * sight.stride;
  dp += row * sight.stride;
  const u32 seen = visible(sight, row);
  const Peak top = peak(scores, seen, sight.scale);
  float along = 0;
  for (u32 i = lane(); i < seen; i += WARP) {
    const float p = expf((to_float(scores[i]) - top.score) * sight.scale) / top.sum;
    along += p * to_float(dp[i]) * factor(sight, row, i);
  }
  along = warp_sum(along);
  for (u32 i = lane(); i < sight.stride; i += WARP) {
    float dropped = 0, gradient = 0;
    if (i < seen) {
      const float p = expf((to_float(scores[i]) - top.score) * sight.scale) / top.sum, keep = factor(sight, row, i);
      dropped = p * keep;
      gradient = p * (to_float(dp[i]) * keep - along) * sight.scale;
    }
    assign(scores[i], dropped);
    assign(dp[i], gradient);
  }
}
KERNEL softmax_grad_f(float* scores, float* dp, Sight sight) { softmax_grad(scores, dp, sight); }
KERNEL softmax_grad_h(bf16* scores, bf16* dp, Sight sight) { softmax_grad(scores, dp, sight); }
