// Definitions that all kernels share. Kernels include no headers, so that nvcc, NVRTC (which finds no headers) and, for tests, a
// C++ compiler accept the same text: build.js concatenates the files *.cuh of this folder, this one first.
//
// A kernel's name ends with the element types of what it reads and writes, `f` for float32 and `h` for bfloat16. All
// arithmetic is in float32.

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#define DEVICE static __device__ __forceinline__
#define KERNEL extern "C" __global__ void

constexpr u32 WARP = 32;
constexpr u32 ALL_LANES = 0xffffffffu;
#define INFINITE __uint_as_float(0x7f800000u)

// Dynamic shared memory of a block. Its size is the launch's `shared`.
#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(name) extern __shared__ float name[]
#endif

/** A number in bfloat16: the upper half of a float32. */
struct bf16 {
  u16 bits;
};

DEVICE float to_float(float x) { return x; }
DEVICE float to_float(bf16 x) { return __uint_as_float(static_cast<u32>(x.bits) << 16); }

DEVICE void assign(float& to, float x) { to = x; }
/** Rounds to the nearest, ties to even; NaN stays NaN. */
DEVICE void assign(bf16& to, float x) {
  const u32 bits = __float_as_uint(x);
  to.bits = x == x ? static_cast<u16>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16) : 0x7fc0u;
}

/** Four adjacent elements, loaded and stored in one access if they are aligned. */
template <typename T>
struct alignas(4 * sizeof(T)) Four {
  T at[4];
};
template <typename T>
DEVICE bool aligned(const T* p) {
  return reinterpret_cast<u64>(p) % sizeof(Four<T>) == 0;
}

/** Loads elements i to i + 3 of p, which has n elements; zeros past the end. */
template <typename T>
DEVICE void load(const T* p, i64 i, i64 n, float (&x)[4]) {
  if (i + 3 < n && aligned(p + i)) {
    const Four<T> four = *reinterpret_cast<const Four<T>*>(p + i);
    for (int j = 0; j < 4; j++) x[j] = to_float(four.at[j]);
  } else {
    for (int j = 0; j < 4; j++) x[j] = i + j < n ? to_float(p[i + j]) : 0;
  }
}
template <typename T>
DEVICE void store(T* p, i64 i, i64 n, const float (&x)[4]) {
  if (i + 3 < n && aligned(p + i)) {
    Four<T> four;
    for (int j = 0; j < 4; j++) assign(four.at[j], x[j]);
    *reinterpret_cast<Four<T>*>(p + i) = four;
  } else {
    for (int j = 0; j < 4 && i + j < n; j++) assign(p[i + j], x[j]);
  }
}

/** Index of the first of this thread's four elements, in kernels without a loop. */
DEVICE i64 own_four() { return 4 * (static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x); }

/** The thread's index in its warp, the warp's index in the block, and the number of warps in the block. */
DEVICE u32 lane() { return threadIdx.x % WARP; }
DEVICE u32 warp_in_block() { return threadIdx.x / WARP; }
DEVICE u32 warps_of_block() { return blockDim.x / WARP; }

/** The sum, or the maximum, over the lanes of a warp, returned to every lane. */
DEVICE float warp_sum(float x) {
  for (u32 step = WARP / 2; step > 0; step /= 2) x += __shfl_xor_sync(ALL_LANES, x, step);
  return x;
}
DEVICE float warp_max(float x) {
  for (u32 step = WARP / 2; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, step));
  return x;
}

DEVICE float silu(float x) { return x / (1 + expf(-x)); }
