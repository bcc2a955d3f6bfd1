#pragma once
#include <ATen/ATen.h>

#include <atomic>

namespace alitok {

/** A linear layer for few rows: its weight (outputs, n) as `linear_few` takes it. */
struct FewRowsLayer {
  const void* weight;
  at::ScalarType type;
  const float *scale, *bias; // (outputs), or null
  int64_t outputs, n;
};

/** The layer of contiguous tensors, which must outlive it. */
FewRowsLayer few_rows_layer(const at::Tensor& weight, const at::Tensor& scale, const at::Tensor& bias);

/** y (rows, outputs) = x·weightᵀ + bias for x (rows, n), of the outputs from `first` to `last` only. */
void few_rows_product(const float* x, int64_t rows, const FewRowsLayer& layer, int64_t first, int64_t last, float* y);

/** Outputs that a thread takes at a time. */
constexpr int64_t FEW_ROWS_CHUNK = 64;

/** Work that threads take in chunks: if one is late, the others do more. */
class Chunks {
 public:
  template <typename Body>
  void take(int64_t count, int64_t chunk, Body body) {
    for (int64_t first; (first = next_.fetch_add(chunk)) < count;) body(first, std::min(first + chunk, count));
  }

  /** Resets for the next work; no thread may still be working on this one. */
  void restart() { next_ = 0; }

 private:
  std::atomic<int64_t> next_{0};
};

}  // namespace alitok
