// Helpers that prepare tensors for a kernel, and that build the kernel's name from their types.
#pragma once
#include <ATen/ATen.h>

#include <algorithm>
#include <string>

#include "launch.h"

namespace alitok::cuda {

inline constexpr int64_t WARP = 32;
/** Default number of threads per block. In the pointwise kernels, each thread processes four elements. */
inline constexpr uint32_t THREADS = 256;
/** Shared memory that a block can use on every device without opting in, in floats. */
inline constexpr int64_t SHARED_FLOATS = 48 * 1024 / sizeof(float);

using at::kBFloat16;
using at::kFloat;
using at::Tensor;

/** The letter of a tensor's element type in kernels' names. */
inline std::string letter(const Tensor& tensor) {
  const auto type = tensor.scalar_type();
  TORCH_CHECK(type == kFloat || type == kBFloat16, "float32 or bfloat16 is expected, not ", type);
  return type == kFloat ? "f" : "h";
}

template <typename... Tensors>
std::string named(const char* kernel, const Tensors&... tensors) {
  return (std::string(kernel) + "_" + ... + letter(tensors));
}

inline Tensor float32(const Tensor& tensor) {
  TORCH_CHECK(tensor.scalar_type() == kFloat, "float32 is expected, not ", tensor.scalar_type());
  return tensor.contiguous();
}

/** `tensor` with the type of `like`, contiguous. */
inline Tensor as(const Tensor& tensor, const Tensor& like) { return tensor.to(like.scalar_type()).contiguous(); }

inline void* data(const Tensor& tensor) { return tensor.defined() ? tensor.data_ptr() : nullptr; }

inline uint32_t blocks(int64_t work, int64_t of_one) {
  const int64_t count = (work + of_one - 1) / of_one;
  TORCH_CHECK(count <= INT32_MAX, "a tensor of ", work, " elements is too large for one kernel");
  return static_cast<uint32_t>(count);
}

}  // namespace alitok::cuda
