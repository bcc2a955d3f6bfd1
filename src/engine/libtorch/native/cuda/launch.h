// How operators start kernels; where, is decided elsewhere: on a CUDA device (device.cc).
#pragma once
#include <ATen/ATen.h>

#include <string>

namespace alitok::cuda {

/** Blocks, threads of each, and bytes of memory that a block's threads share beside what the kernel declares. */
struct Grid {
  uint32_t blocks, threads, shared = 0;
};

/** Queues a kernel behind all work of `device`'s current stream. `arguments` point to values of the kernel's types. */
void launch(const std::string& kernel, const Grid& grid, void** arguments, c10::Device device);

/** Why kernels cannot be launched on a device; empty where they can. Asked once before any is. */
std::string why_not(c10::Device device);

/** Launches a kernel whose parameters have exactly the types of `values`. */
template <typename... Values>
void run(const std::string& kernel, const Grid& grid, c10::Device device, Values... values) {
  void* arguments[] = {&values...};
  launch(kernel, grid, arguments, device);
}

}  // namespace alitok::cuda
