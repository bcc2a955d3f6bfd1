// Loads and launches kernels on a CUDA device. This uses the driver API, which accepts code that was compiled elsewhere: by
// nvcc when the bridge was built, or by NVRTC at first use if there was no nvcc or the device has another architecture.
//
// build.js writes `kernels.h`: KERNEL_TEXT, the source of all kernels, and KERNEL_CODE, nvcc's code for some devices.
#include <ATen/ATen.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGraphsC10Utils.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda.h>
#include <dlfcn.h>
#include <torch/library.h>

#include <cstdlib>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "compiler.h"
#include "kernels.h"
#include "launch.h"

namespace alitok::cuda {
namespace {

/** Bytes of shared memory that a block can use by default. A kernel that needs more must opt in. */
constexpr int PLAIN_SHARED = 48 << 10;

/** The driver's functions. Like PyTorch, the bridge does not link against the driver, so it loads on machines without one. */
struct Driver {
  decltype(&cuGetErrorString) error_string;
  decltype(&cuCtxGetCurrent) current_context;
  decltype(&cuModuleLoadData) load;
  decltype(&cuModuleGetFunction) function;
  decltype(&cuFuncGetAttribute) attribute;
  decltype(&cuFuncSetAttribute) set_attribute;
  decltype(&cuLaunchKernel) launch;
  std::string missing;

  Driver() {
    void* library = dlopen("libcuda.so.1", RTLD_LAZY);
    if (!library) {
      missing = std::string("there is no NVIDIA driver: ") + dlerror();
      return;
    }
    const auto find = [&](const char* name, auto& function) {
      function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(library, name));
      if (!function) missing = std::string("the NVIDIA driver has no ") + name;
    };
    find("cuGetErrorString", error_string);
    find("cuCtxGetCurrent", current_context);
    find("cuModuleLoadData", load);
    find("cuModuleGetFunction", function);
    find("cuFuncGetAttribute", attribute);
    find("cuFuncSetAttribute", set_attribute);
    find("cuLaunchKernel", launch);
  }

  std::string words(CUresult result) const {
    const char* text = nullptr;
    error_string(result, &text);
    return text ? text : "error " + std::to_string(static_cast<int>(result));
  }
};

const Driver& driver() {
  static const Driver& driver = *new Driver();
  return driver;
}

/** Makes the current device's context current on this thread. The runtime itself does so only at a call that needs it. */
void ensure_context() {
  TORCH_CHECK(driver().missing.empty(), driver().missing);
  CUcontext context = nullptr;
  driver().current_context(&context);
  if (!context) C10_CUDA_CHECK(cudaFree(nullptr));
}

struct Kernel {
  CUfunction function;
  /** Bytes of dynamic shared memory that it may use. */
  int shared;
};

/** A device's code, loaded at first use. It is never unloaded, because the driver may have shut down when the process ends. */
struct Code {
  CUmodule module = nullptr;
  /** Why the code could not be loaded; empty if it was loaded. */
  std::string error;
  std::unordered_map<std::string, Kernel> kernels;
};

std::mutex mutex;

std::string text() { return {reinterpret_cast<const char*>(KERNEL_TEXT), sizeof KERNEL_TEXT}; }

/** The name of the first kernel in the text, or an empty string. */
std::string some_kernel() {
  const std::string text = cuda::text(), before = "\nKERNEL ";
  const size_t at = text.find(before);
  if (at == std::string::npos) return "";
  const size_t start = at + before.size();
  return text.substr(start, text.find('(', start) - start);
}

/**
 * Loads the build's code. This fails if the build has no code for the device, or if the PTX is from a newer nvcc than the
 * driver supports. The driver may not check the code until a kernel is looked up, so one kernel is looked up here.
 */
bool load_built(CUmodule& module) {
  if (!HAS_KERNEL_CODE || driver().load(&module, KERNEL_CODE) != CUDA_SUCCESS) return false;
  const std::string name = some_kernel();
  CUfunction function;
  return name.empty() || driver().function(&function, module, name.c_str()) == CUDA_SUCCESS;
}

/** Loads the build's code or, if that fails, compiles the source with NVRTC. Throws c10::Error. */
CUmodule load(c10::DeviceIndex device) {
  TORCH_CHECK(device >= 0 && device < c10::cuda::device_count(), "there is no device cuda:", static_cast<int>(device));
  const c10::cuda::CUDAGuard guard(device);
  ensure_context();
  // Loading allocates device memory, which would otherwise break a graph capture by this thread.
  const c10::cuda::CUDAStreamCaptureModeGuard relaxed(cudaStreamCaptureModeRelaxed);
  CUmodule module;
  if (load_built(module)) return module;
  int major, minor;
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
  const Compiled made = compile_for(text(), major, minor);
  TORCH_CHECK(made.error.empty(), first_error(made.error));
  const CUresult result = driver().load(&module, made.code.data());
  TORCH_CHECK(result == CUDA_SUCCESS, "the driver does not load what NVRTC made: ", driver().words(result));
  return module;
}

/** The code of a device. It is loaded at most once, even if that fails. The caller must hold `mutex`. Never throws. */
Code& code_of(c10::DeviceIndex device) {
  static auto& codes = *new std::unordered_map<int, std::unique_ptr<Code>>();
  auto& code = codes[device];
  if (code) return *code;
  code = std::make_unique<Code>();
  try {
    code->module = load(device);
  } catch (const c10::Error& error) {
    code->error = first_error(error.what_without_backtrace());
  } catch (const std::exception& error) {
    code->error = first_error(error.what());
  }
  if (!code->module && code->error.empty()) code->error = "kernels cannot be loaded";
  return *code;
}

/** Finds a kernel and lets it use `shared` bytes of dynamic shared memory. */
CUfunction find(const std::string& name, int shared, c10::DeviceIndex device) {
  const auto check = [&](CUresult result) {
    TORCH_CHECK(result == CUDA_SUCCESS, "kernel ", name, " with ", shared, " shared bytes: ", driver().words(result));
  };
  const std::lock_guard<std::mutex> lock(mutex);
  Code& code = code_of(device);
  TORCH_CHECK(code.module, "kernel ", name, ": ", code.error);
  auto found = code.kernels.find(name);
  if (found == code.kernels.end()) {
    const c10::cuda::CUDAStreamCaptureModeGuard relaxed(cudaStreamCaptureModeRelaxed); // the driver may load the kernel only now
    CUfunction function;
    int declared = 0;
    check(driver().function(&function, code.module, name.c_str()));
    check(driver().attribute(&declared, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, function));
    found = code.kernels.emplace(name, Kernel{function, PLAIN_SHARED - declared}).first;
  }
  Kernel& kernel = found->second;
  if (shared > kernel.shared) {
    check(driver().set_attribute(kernel.function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared));
    kernel.shared = shared;
  }
  return kernel.function;
}

/** The index of a CUDA device; `cuda` without an index is the current device. */
c10::DeviceIndex index_of(c10::Device device) {
  return device.has_index() ? device.index() : static_cast<c10::DeviceIndex>(c10::cuda::current_device());
}

}  // namespace

void launch(const std::string& kernel, const Grid& grid, void** arguments, c10::Device device) {
  if (grid.blocks == 0) return; // nothing to do; the driver would return an error
  const c10::DeviceIndex index = index_of(device);
  const c10::cuda::CUDAGuard guard(index);
  ensure_context();
  const CUfunction function = find(kernel, static_cast<int>(grid.shared), index);
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream(index).stream();
  const CUresult result =
      driver().launch(function, grid.blocks, 1, 1, grid.threads, 1, 1, grid.shared, stream, arguments, nullptr);
  TORCH_CHECK(result == CUDA_SUCCESS, "kernel ", kernel, " (", grid.blocks, " blocks of ", grid.threads, " threads, ",
              grid.shared, " bytes): ", driver().words(result));
}

at::Tensor product(const at::Tensor& x, const at::Tensor& weight, const c10::optional<at::Tensor>& bias) {
  return at::linear(x, weight, bias);
}

std::string why_not(c10::Device device) {
  try {
    if (!device.is_cuda()) return "they are for CUDA devices, not for " + device.str();
    const char* wanted = std::getenv("ALITOK_CUDA_KERNELS");
    if (wanted && std::string(wanted) == "0") return "ALITOK_CUDA_KERNELS is 0";
    // Checked before PyTorch is called, because its own message on a machine without a driver is about Python.
    if (!driver().missing.empty()) return driver().missing;
    const c10::DeviceIndex index = index_of(device);
    const std::lock_guard<std::mutex> lock(mutex);
    return code_of(index).error;
  } catch (const c10::Error& error) {
    return first_error(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return first_error(error.what());
  }
}

TORCH_LIBRARY_FRAGMENT(alitok, library) {
  // Why a device cannot run our kernels, in one line; empty if it can. Loads the kernels, which takes a while if they must be
  // compiled, so it should be called before a graph is captured.
  library.def("cuda_kernels(Device device) -> str", [](c10::Device device) { return why_not(device); });
  // NVRTC's error when it compiles the kernels for an architecture such as `sm_90`; empty on success. Needs no device.
  library.def("cuda_compile(str architecture) -> str",
              [](std::string architecture) { return compile(text(), architecture).error; });
}

}  // namespace alitok::cuda
