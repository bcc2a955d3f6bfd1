// arguments.cuh for host code that launches kernels.
#pragma once
#include <cstdint>

namespace alitok::cuda {

using u32 = uint32_t;
using i64 = int64_t;
struct bf16;

#include "arguments.cuh"

}  // namespace alitok::cuda
