// Runs the operators of our own kernels on CPU tensors, with the emulator. This is a Node.js module separate from the bridge. Its
// operators are named `alitok_emulated::NAME`.
#include <node_api.h>
#include <torch/library.h>

#include <map>
#include <string>
#include <utility>

#include "launch.h"
#include "operators.h"
// The emulator defines macros for the kernels' source, so it is included after the other headers.
#include "emulator.h"
// The kernels' source, which emulate.ts writes.
#include "kernels.inc"

namespace alitok::cuda {
namespace {

template <typename... Values, size_t... I>
void call(void (*kernel)(Values...), void** arguments, std::index_sequence<I...>) {
  kernel(*static_cast<std::remove_reference_t<Values>*>(arguments[I])...);
}
template <typename... Values>
std::function<void(void**)> caller(void (*kernel)(Values...)) {
  return [kernel](void** arguments) { call(kernel, arguments, std::index_sequence_for<Values...>()); };
}

const std::map<std::string, std::function<void(void**)>>& kernels() {
  static const std::map<std::string, std::function<void(void**)>> all = {
#define ENTRY(name) {#name, caller(::name)},
#include "names.inc"
  };
  return all;
}

bool backwards = false;
int64_t launches = 0;

}  // namespace

void launch(const std::string& kernel, const Grid& grid, void** arguments, c10::Device) {
  const auto found = kernels().find(kernel);
  TORCH_CHECK(found != kernels().end(), "there is no kernel ", kernel);
  TORCH_CHECK(grid.threads % 32 == 0 && grid.threads <= 1024 && grid.blocks > 0 && grid.shared <= 48 << 10, kernel,
              ": a launch that a device would refuse");
  launches += 1;
  emulator::run([&] { found->second(arguments); }, grid.blocks, grid.threads, grid.shared, backwards);
}

/** Like CUDA's libraries: bfloat16 products are accumulated in float32 and then rounded. */
at::Tensor product(const at::Tensor& x, const at::Tensor& weight, const c10::optional<at::Tensor>& bias) {
  const bool biased = bias.has_value() && bias->defined();
  TORCH_CHECK(x.scalar_type() == weight.scalar_type() && (!biased || bias->scalar_type() == x.scalar_type()),
              "a CUDA device would refuse a product of different types");
  launches += 1;
  const auto wide = [](const at::Tensor& t) { return t.to(at::kFloat); };
  return at::linear(wide(x), wide(weight), biased ? c10::optional<at::Tensor>(wide(*bias)) : c10::nullopt).to(x.scalar_type());
}

TORCH_LIBRARY_FRAGMENT(alitok_emulated, library) {
#define DEFINE(name) library.def(#name, name);
  FOR_EACH_OPERATOR(DEFINE)
#undef DEFINE
  library.def("set_backwards", [](bool wanted) { backwards = wanted; });
  library.def("launches", []() { return launches; });
  library.def("address", [](const at::Tensor& x) { return reinterpret_cast<int64_t>(x.data_ptr()); });
}

}  // namespace alitok::cuda

namespace {
napi_value initialize(napi_env, napi_value exports) { return exports; }
}  // namespace
NAPI_MODULE(alitok_emulated, initialize)
