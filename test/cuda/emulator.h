// Runs CUDA kernels on the CPU. This header makes their source valid C++. A block's threads are fibers on one CPU thread. A fiber
// runs until it reaches a barrier, so values that are read without the needed barrier are wrong here as well. Each kernel can
// also be run with its threads in reverse order.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

namespace emulator {

struct Dimension {
  unsigned x = 1, y = 1, z = 1;
};

/** Index of the running thread and of its block, and the sizes of the block and the grid. */
extern Dimension thread, block, threads, blocks;

/** Suspends the thread until all threads of its warp, or of its block, have reached this barrier. */
void sync_warp();
void sync_block();
/** Eight bytes per lane, for exchanges within a warp. */
uint64_t& slot(unsigned lane);
/** The launch's dynamic shared memory; filled with NaN when a block begins. */
float* shared_memory();

/** Runs `kernel` for all threads of all blocks. Throws std::runtime_error if threads wait for each other at different barriers. */
void run(const std::function<void()>& kernel, unsigned blocks, unsigned threads, size_t shared_bytes, bool backwards);

template <typename T>
T exchange(T value, unsigned from, bool inside) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  std::memcpy(&slot(thread.x % 32), &value, sizeof value);
  sync_warp();
  T found = value;
  if (inside) std::memcpy(&found, &slot(from), sizeof found);
  sync_warp();
  return found;
}

}  // namespace emulator

#define __device__
#define __global__
#define __shared__ static
#define __forceinline__ inline
#define DYNAMIC_SHARED(name) float* const name = emulator::shared_memory()
#define threadIdx emulator::thread
#define blockIdx emulator::block
#define blockDim emulator::threads
#define gridDim emulator::blocks

inline void __syncthreads() { emulator::sync_block(); }
inline void __syncwarp() { emulator::sync_warp(); }
template <typename T>
T __shfl_xor_sync(unsigned, T value, unsigned mask) {
  return emulator::exchange(value, (emulator::thread.x % 32) ^ mask, true);
}
template <typename T>
T __shfl_up_sync(unsigned, T value, unsigned delta) {
  const unsigned lane = emulator::thread.x % 32;
  return emulator::exchange(value, lane - delta, lane >= delta);
}
inline float __uint_as_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
inline uint32_t __float_as_uint(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
