// Registers the operators for tensors on CUDA devices. Those that the CPU has as well are declared with the CPU's operators.
#include <torch/library.h>

#include "operators.h"

TORCH_LIBRARY_FRAGMENT(alitok, library) {
  library.def("layer_norm(Tensor x, Tensor weight, Tensor bias, float epsilon, bool half) -> Tensor");
  library.def("layer_norm_grad(Tensor dy, Tensor x, Tensor weight, float epsilon) -> (Tensor, Tensor, Tensor)");
  library.def("norm_rotary(Tensor x, Tensor weight, Tensor cos, Tensor sin, float epsilon) -> Tensor");
  library.def(
      "norm_rotary_grad(Tensor dy, Tensor x, Tensor weight, Tensor cos, Tensor sin, float epsilon) -> (Tensor, Tensor)");
  library.def("heads_first(Tensor x, int rows) -> Tensor");
  library.def("round_all(Tensor[] tensors) -> Tensor[]");
  library.def("attention_weights(Tensor(a!) scores, int keys, bool causal, float scale, float rate, int seed) -> ()");
  library.def(
      "attention_weights_grad(Tensor(a!) scores, Tensor(b!) dp, int keys, bool causal, float scale, float rate, int seed) "
      "-> ()");
}

TORCH_LIBRARY_IMPL(alitok, CUDA, library) {
#define IMPLEMENT(name) library.impl(#name, alitok::cuda::name);
  FOR_EACH_OPERATOR(IMPLEMENT)
#undef IMPLEMENT
}
