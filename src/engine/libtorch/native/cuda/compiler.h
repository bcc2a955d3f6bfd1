// Compiles kernels with NVRTC, which comes with PyTorch, for devices that the build has no code for.
#pragma once
#include <string>

namespace alitok::cuda {

/** The result of a compilation: code for the driver, or an error. */
struct Compiled {
  std::string code;
  /** Empty on success; otherwise the compiler's log, or why there is no compiler. */
  std::string error;
};

/** Compiles source text for an architecture: `sm_90` gives code for that device, `compute_90` PTX for it and newer devices. */
Compiled compile(const std::string& text, const std::string& architecture);

/**
 * Compiles source text for a device of this compute capability. A compiler that is older than the device gives PTX for the
 * newest architecture that it knows, and the driver compiles that PTX for the device.
 */
Compiled compile_for(const std::string& text, int major, int minor);

/** The first line of a compiler's log that contains `error:`, or else its first line. */
std::string first_error(const std::string& log);

}  // namespace alitok::cuda
