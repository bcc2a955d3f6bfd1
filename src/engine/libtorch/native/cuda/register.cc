// The operators for tensors on CUDA devices. What they take and give is declared where the CPU's are.
#include <torch/library.h>

#include "operators.h"

TORCH_LIBRARY_IMPL(alitok, CUDA, library) {
#define IMPLEMENT(name) library.impl(#name, alitok::cuda::name);
  FOR_EACH_OPERATOR(IMPLEMENT)
#undef IMPLEMENT
}
