#pragma once
#include <cstdint>

namespace alitok {

/** A matrix in memory: element (i, j) is at data[i·stride + j], or at data[j·stride + i] if it is transposed. */
struct Matrix {
  const float* data;
  int64_t stride;
  bool transposed;
};

/** Whether this processor has the vectors that `gemm` is written for; elsewhere PyTorch's own product is used. */
bool has_gemm();

/** c (m, n), contiguous = a (m, k) · b (k, n) + bias (n) if there is one, on all of PyTorch's threads. */
void gemm(int64_t m, int64_t n, int64_t k, Matrix a, Matrix b, float* c, const float* bias);

}  // namespace alitok
