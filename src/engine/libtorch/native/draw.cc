// Draws a code for each image from its logits on the CPU: everything after a decoding step, in one call.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <numeric>
#include <vector>

#include "simd.h"

namespace alitok {
namespace {

/** Sampling parameters (engine/ops/drawing.ts). */
struct Draw {
  double temperature;
  int64_t top_k;
  double top_p;
};

/** The index of the first maximum; NaN counts as larger than all numbers. */
int64_t largest(const float* x, int64_t n) {
  int64_t best = 0;
  for (int64_t i = 1; i < n && !std::isnan(x[best]); i++)
    if (!(x[i] <= x[best])) best = i;
  return best;
}

/** Keeps the top_k largest weights and, of these, the largest that reach the share top_p of their sum; zeroes the rest. */
void truncate(std::vector<double>& weights, const Draw& draw) {
  std::vector<int64_t> order(weights.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return weights[a] > weights[b]; });
  const auto count = draw.top_k > 0 ? std::min<int64_t>(draw.top_k, order.size()) : static_cast<int64_t>(order.size());
  double limit = 0, sum = 0;
  for (int64_t i = 0; i < count; i++) limit += weights[order[i]];
  limit *= draw.top_p;
  for (int64_t i = 0; i < static_cast<int64_t>(order.size()); i++) {
    double& weight = weights[order[i]];
    if (i >= count || sum >= limit) weight = 0;
    sum += weight;
  }
}

int64_t draw_one(const std::vector<float>& logits, double uniform, const Draw& draw) {
  const int64_t n = logits.size(), best = largest(logits.data(), n);
  if (draw.temperature == 0) return best;
  std::vector<double> weights(n);
  for (int64_t i = 0; i < n; i++) weights[i] = std::exp((static_cast<double>(logits[i]) - logits[best]) / draw.temperature);
  // Weights with a NaN cannot be sorted. Their sum is NaN as well; the code is then the one with the largest logit.
  const double whole = std::accumulate(weights.begin(), weights.end(), 0.0);
  if (std::isnan(whole)) return best;
  if ((draw.top_k > 0 && draw.top_k < n) || draw.top_p < 1) truncate(weights, draw);
  const double wanted = uniform * std::accumulate(weights.begin(), weights.end(), 0.0);
  double sum = 0;
  for (int64_t i = 0; i < n; i++) {
    sum += weights[i];
    if (sum > wanted) return i;
  }
  return best; // rounding left a remainder
}

/**
 * Draws the codes of step `position` from logits (B, N) or, with guidance scales (T), from logits (2·B, N), first those with
 * the class and then those without. Writes the codes to column `position` of codes (B, T), and to ids (B or 2·B), the input
 * of the next step. uniforms are (T, B). Increments the position.
 */
void draw_step(const Tensor& logits_, const Tensor& uniforms_, const c10::optional<Tensor>& scales, const Tensor& position,
               const Tensor& ids, const Tensor& codes, double temperature, int64_t top_k, double top_p) {
  const Tensor logits = dense(logits_), uniforms = dense(uniforms_);
  const int64_t images = codes.size(0), steps = codes.size(1), entries = logits.size(-1), at = position.item<int>();
  const bool guided = scales.has_value() && scales->defined();
  TORCH_CHECK(logits.numel() == (guided ? 2 : 1) * images * entries && ids.numel() * entries == logits.numel(),
              "logits of ", images, guided ? " guided" : "", " images are expected");
  TORCH_CHECK(at < steps, "step ", at, " of ", steps);
  TORCH_CHECK(codes.is_contiguous() && ids.is_contiguous(), "contiguous codes are expected");
  const float scale = guided ? in(dense(*scales))[at] : 0;
  const Draw draw{temperature, top_k, top_p};
  at::parallel_for(0, images, 1, [&](int64_t first, int64_t last) {
    std::vector<float> row(entries);
    for (int64_t image = first; image < last; image++) {
      std::copy_n(in(logits) + image * entries, entries, row.begin());
      const float* free = in(logits) + (images + image) * entries;
      for (int64_t i = 0; i < entries && guided; i++) row[i] = free[i] + (row[i] - free[i]) * scale;
      const auto code = static_cast<int32_t>(draw_one(row, in(uniforms)[at * images + image], draw));
      codes.data_ptr<int32_t>()[image * steps + at] = code;
      ids.data_ptr<int32_t>()[image] = code;
      if (guided) ids.data_ptr<int32_t>()[images + image] = code;
    }
  });
  position.add_(1);
}

TORCH_LIBRARY_FRAGMENT(alitok, library) {
  library.def(
      "draw_step(Tensor logits, Tensor uniforms, Tensor? scales, Tensor(a!) position, Tensor(b!) ids, Tensor(c!) codes, "
      "float temperature, int top_k, float top_p) -> ()",
      draw_step);
}

}  // namespace
}  // namespace alitok
