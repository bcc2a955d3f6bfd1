// The device functions that operators use (device.cc).
#pragma once
#include <ATen/ATen.h>

#include <string>

namespace alitok::cuda {

/** Number of blocks, threads per block, and bytes of dynamic shared memory per block. */
struct Grid {
  uint32_t blocks, threads, shared = 0;
};

/** Queues a kernel on `device`'s current stream. `arguments` are pointers to values of the kernel's parameter types. */
void launch(const std::string& kernel, const Grid& grid, void** arguments, c10::Device device);

/** Why kernels cannot be launched on a device; empty if they can. Called once, before the first launch. */
std::string why_not(c10::Device device);

/** x·weightᵀ + bias, computed by the device's library; the bias may be absent. */
at::Tensor product(const at::Tensor& x, const at::Tensor& weight, const c10::optional<at::Tensor>& bias);

/** Launches a kernel whose parameters have exactly the types of `values`. */
template <typename... Values>
void run(const std::string& kernel, const Grid& grid, c10::Device device, Values... values) {
  void* arguments[] = {&values...};
  launch(kernel, grid, arguments, device);
}

}  // namespace alitok::cuda
