// Shared parts of the CPU kernels, which take contiguous float32 tensors. `engine/libtorch/kernels` calls the kernels for
// tensors on the CPU and composes ATen operators on other devices.
#pragma once
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

// A function of plain loops is compiled once for each instruction set, and the right one is chosen when the library is
// loaded.
#if defined(__x86_64__) && !defined(__clang__) && __GNUC__ >= 12
#define VECTORIZED __attribute__((target_clones("avx512f", "arch=x86-64-v3", "default")))
#elif defined(__x86_64__) && !defined(__clang__) && defined(__GNUC__)
#define VECTORIZED __attribute__((target_clones("avx512f", "avx2", "default"))) // no fused multiply-add in these
#else
#define VECTORIZED
#endif
#define INLINE inline __attribute__((always_inline))

namespace alitok {

using at::Tensor;

/** Vectors of `Lanes` numbers. If they are larger than a register of the processor, they go through memory. */
template <int Lanes>
using Floats __attribute__((vector_size(4 * Lanes))) = float;
template <int Lanes>
using Integers __attribute__((vector_size(4 * Lanes))) = int32_t;

/** Indices of the lower halves (upper: `from` = Group / 2) of the groups of `Group` lanes in two vectors. */
template <int Lanes, int Group, int... I>
constexpr Integers<Lanes> halves(int from, std::integer_sequence<int, I...>) {
  return Integers<Lanes>{I / (Group / 2) * Group + I % (Group / 2) + from...};
}

/** Lane i of the result: the sum of all lanes of v[i], for `Group` = `Lanes` vectors. Overwrites v. */
template <int Lanes, int Group = Lanes>
INLINE Floats<Lanes> sums_of_lanes(Floats<Lanes>* v) {
  if constexpr (Group == 1) {
    return v[0];
  } else {
    constexpr auto all = std::make_integer_sequence<int, Lanes>();
    constexpr Integers<Lanes> lower = halves<Lanes, Group>(0, all), upper = halves<Lanes, Group>(Group / 2, all);
#pragma GCC unroll 16
    for (int i = 0; i < Group; i += 2)
      v[i / 2] = __builtin_shuffle(v[i], v[i + 1], lower) + __builtin_shuffle(v[i], v[i + 1], upper);
    return sums_of_lanes<Lanes, Group / 2>(v);
  }
}

// For loops written with vectors of a fixed length, which fit the registers: defines `name`, which calls the inlined
// template `body<Lanes>`, compiled for the vectors of this processor.
#if defined(__x86_64__) && defined(__GNUC__)
#define FOR_VECTORS(name, body)                                                                              \
  template <typename... A>                                                                                   \
  __attribute__((target("avx512f,fma"))) void name##_avx512(const A&... a) { body<16>(a...); }               \
  template <typename... A>                                                                                   \
  __attribute__((target("avx2,fma"))) void name##_avx2(const A&... a) { body<8>(a...); }                     \
  template <typename... A>                                                                                   \
  void name(const A&... a) {                                                                                 \
    if (lanes() == 16) name##_avx512(a...);                                                                  \
    else if (lanes() == 8) name##_avx2(a...);                                                                \
    else body<4>(a...);                                                                                      \
  }
/** Floats in a vector of this processor. */
inline int lanes() {
  static const int found = [] {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f")) return 16;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? 8 : 4;
  }();
  return found;
}
#else
#define FOR_VECTORS(name, body) \
  template <typename... A>      \
  void name(const A&... a) { body<4>(a...); }
#endif

/** The smallest work of a thread, in elements, that makes another thread worthwhile. */
constexpr int64_t GRAIN = 1 << 14;

/** The elements of a tensor that `dense` has returned. */
inline const float* in(const Tensor& tensor) { return tensor.data_ptr<float>(); }
inline float* out(const Tensor& tensor) { return tensor.data_ptr<float>(); }

inline Tensor dense(const Tensor& tensor) {
  TORCH_CHECK(tensor.scalar_type() == at::kFloat && tensor.is_cpu(), "a float32 tensor on the CPU is expected");
  return tensor.contiguous();
}

// A product that the compiler must not reorder: x·s·w with a large x and a small s would overflow as x·w·s. With
// compilers that cannot express this, the result may be NaN.
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#define IN_ORDER(x) __builtin_assoc_barrier(x)
#else
#define IN_ORDER(x) (x)
#endif

/**
 * eˣ to about one unit in the last place; unlike the library's function, it can be vectorized. It is infinity above ln of
 * the largest float, NaN for NaN, and 0 below −87.68, where the result would no longer be normal.
 */
INLINE float exponential(float x) {
  const float clamped = std::min(std::max(x, -88.0f), 89.0f); // both return their first argument if it is NaN
  // 2¹²⁷ is the largest power: the largest results come from a larger r, and greater ones overflow in the product.
  // 2⁻¹²⁷ has the bits of 0.
  const float n = std::min(std::nearbyint(clamped * 1.44269504f), 127.0f);
  const float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f; // |r| ≤ ln 2 / 2, except for the largest x
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1;
  const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return p * power;
}

}  // namespace alitok
