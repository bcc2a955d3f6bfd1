// NVRTC, the compiler of kernels that comes with PyTorch, for devices that the build made no code for.
#pragma once
#include <string>

namespace alitok::cuda {

/** What was compiled: code for the driver, or why there is none. */
struct Compiled {
  std::string code;
  /** Empty where it went well; else what the compiler said, or why there is no compiler. */
  std::string error;
};

/** Compiles a text for an architecture: `sm_90` gives code for that device, `compute_90` PTX for it and newer ones. */
Compiled compile(const std::string& text, const std::string& architecture);

/**
 * Compiles a text for a device of such a compute capability. A compiler that is older than the device gives PTX of the
 * newest architecture that it knows, of which the driver makes the device's code.
 */
Compiled compile_for(const std::string& text, int major, int minor);

/** The line of a compiler's words that says what is wrong. */
std::string first_error(const std::string& log);

}  // namespace alitok::cuda
