#include "compiler.h"

#include <c10/cuda/CUDAFunctions.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <algorithm>
#include <filesystem>
#include <sstream>
#include <vector>

namespace alitok::cuda {
namespace {

namespace fs = std::filesystem;

constexpr int CUDA_MAJOR = CUDART_VERSION / 1000;

// NVRTC's interface. It is declared here because none of the PyTorch packages that every build needs contains NVRTC's header.
// Status 0 is success.
using Program = void*;
struct Nvrtc {
  const char* (*error)(int);
  int (*create)(Program*, const char* text, const char* name, int headers, const char* const*, const char* const*);
  int (*destroy)(Program*);
  int (*compile)(Program, int count, const char* const* options);
  int (*log_size)(Program, size_t*);
  int (*log)(Program, char*);
  int (*ptx_size)(Program, size_t*);
  int (*ptx)(Program, char*);
  int (*cubin_size)(Program, size_t*);
  int (*cubin)(Program, char*);
  int (*architecture_count)(int*);
  int (*architectures)(int*);
};

template <typename Function>
bool look_up(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

/** Looks up the functions in a library and its dependencies. */
bool bind(void* library, Nvrtc& nvrtc) {
  return look_up(library, "nvrtcGetErrorString", nvrtc.error) && look_up(library, "nvrtcCreateProgram", nvrtc.create) &&
         look_up(library, "nvrtcDestroyProgram", nvrtc.destroy) &&
         look_up(library, "nvrtcCompileProgram", nvrtc.compile) &&
         look_up(library, "nvrtcGetProgramLogSize", nvrtc.log_size) &&
         look_up(library, "nvrtcGetProgramLog", nvrtc.log) && look_up(library, "nvrtcGetPTXSize", nvrtc.ptx_size) &&
         look_up(library, "nvrtcGetPTX", nvrtc.ptx) && look_up(library, "nvrtcGetCUBINSize", nvrtc.cubin_size) &&
         look_up(library, "nvrtcGetCUBIN", nvrtc.cubin) &&
         look_up(library, "nvrtcGetNumSupportedArchs", nvrtc.architecture_count) &&
         look_up(library, "nvrtcGetSupportedArchs", nvrtc.architectures);
}

/** The folder of PyTorch's libraries, found through one that the bridge is linked against. */
fs::path torch_folder() {
  Dl_info info;
  if (dladdr(reinterpret_cast<void*>(&c10::cuda::device_count), &info) == 0 || !info.dli_fname) return {};
  return fs::path(info.dli_fname).parent_path();
}

/**
 * Paths where NVRTC may be, best first. NVRTC opens its builtins library by file name only. That finds the library only if
 * it is on the search path of the library that loaded NVRTC, or is already loaded. So the builtins library is loaded here
 * where its folder is known.
 */
std::vector<std::string> places() {
  std::vector<std::string> found;
  const fs::path torch = torch_folder();
  // PyTorch's stub library loads NVRTC from PyTorch's own search path. The stub needs the driver.
  found.push_back((torch / "libcaffe2_nvrtc.so").string());
  const fs::path packages = torch / ".." / ".." / "nvidia";
  const std::string together = "cu" + std::to_string(CUDA_MAJOR);
  for (const fs::path& folder : {packages / together / "lib", packages / "cuda_nvrtc" / "lib", torch}) {
    std::error_code missing;
    for (const auto& entry : fs::directory_iterator(folder, missing)) {
      const std::string name = entry.path().filename().string(), path = entry.path().string();
      // PyTorch's archives add a hash to the name; "alt" is another build of the same library.
      if (name.rfind("libnvrtc", 0) != 0 || name.find(".so") == name.npos || name.find(".alt.") != name.npos) continue;
      if (name.rfind("libnvrtc-builtins", 0) == 0) dlopen(path.c_str(), RTLD_LAZY | RTLD_LOCAL);
      else found.push_back(path);
    }
  }
  found.push_back("libnvrtc.so." + std::to_string(CUDA_MAJOR));
  if (CUDA_MAJOR == 11) found.push_back("libnvrtc.so.11.2"); // the name in all versions from 11.2 to 11.8
  return found;
}

struct Found {
  Nvrtc nvrtc;
  std::string error;
};

Found find() {
  Found found;
  // Newer versions of libtorch are linked against NVRTC, so it is already loaded.
  if (void* loaded = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD); loaded && bind(loaded, found.nvrtc)) return found;
  for (const std::string& place : places()) {
    void* library = dlopen(place.c_str(), RTLD_LAZY | RTLD_LOCAL);
    if (library && bind(library, found.nvrtc)) return found;
    if (library) dlclose(library);
  }
  found.error = "there is no NVRTC (libnvrtc.so." + std::to_string(CUDA_MAJOR) + ") beside PyTorch";
  return found;
}

/** NVRTC is searched for once and never unloaded. */
const Found& nvrtc() {
  static const Found& found = *new Found(find());
  return found;
}

}  // namespace

Compiled compile(const std::string& text, const std::string& architecture) {
  const auto& [nvrtc, error] = cuda::nvrtc();
  if (!error.empty()) return {"", error};
  Program program;
  if (const int status = nvrtc.create(&program, text.c_str(), "kernels.cu", 0, nullptr, nullptr))
    return {"", std::string("NVRTC: ") + nvrtc.error(status)};
  const std::string option = "--gpu-architecture=" + architecture;
  const char* options[] = {option.c_str(), "--std=c++17"};
  const int status = nvrtc.compile(program, 2, options);
  Compiled made;
  size_t size = 0;
  if (status == 0) {
    const bool ptx = architecture.rfind("compute_", 0) == 0;
    (ptx ? nvrtc.ptx_size : nvrtc.cubin_size)(program, &size);
    made.code.resize(size);
    if (size > 0) (ptx ? nvrtc.ptx : nvrtc.cubin)(program, made.code.data());
    else made.error = "NVRTC made nothing for " + architecture;
  } else {
    nvrtc.log_size(program, &size);
    std::string log(size, '\0');
    if (size > 0) nvrtc.log(program, log.data());
    log.resize(std::min(log.find('\0'), log.size()));
    made.error = std::string("NVRTC: ") + nvrtc.error(status) + (log.empty() ? "" : "\n" + log);
  }
  nvrtc.destroy(&program);
  return made;
}

Compiled compile_for(const std::string& text, int major, int minor) {
  const auto& [nvrtc, error] = cuda::nvrtc();
  if (!error.empty()) return {"", error};
  const int device = 10 * major + minor;
  int count = 0;
  nvrtc.architecture_count(&count);
  std::vector<int> known(count);
  if (count > 0) nvrtc.architectures(known.data());
  if (std::find(known.begin(), known.end(), device) != known.end()) return compile(text, "sm_" + std::to_string(device));
  int newest = 0;
  for (const int architecture : known)
    if (architecture < device) newest = std::max(newest, architecture);
  if (newest == 0) return {"", "this PyTorch's NVRTC has no code for devices as old as sm_" + std::to_string(device)};
  return compile(text, "compute_" + std::to_string(newest));
}

std::string first_error(const std::string& log) {
  std::istringstream lines(log);
  std::string line, first;
  while (std::getline(lines, line)) {
    if (line.find("error:") != std::string::npos) return line;
    if (first.empty()) first = line;
  }
  return first;
}

}  // namespace alitok::cuda
