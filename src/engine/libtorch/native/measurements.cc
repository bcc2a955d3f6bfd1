// PyTorch's measurements of a run: the kernels that it launched, and the memory that a device's tensors used. The
// interfaces are recent and not PyTorch's most stable, so build.js leaves this file out if it does not compile.
#include <ATen/ATen.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/csrc/autograd/profiler_kineto.h>
#include <torch/library.h>

#include <map>
#include <sstream>

namespace alitok {
namespace {

namespace profiler = torch::autograd::profiler;
using torch::profiler::impl::ActivityType;

std::set<ActivityType> activities(bool cuda) { return {cuda ? ActivityType::CUDA : ActivityType::CPU}; }

/** Starts recording the kernels that a CUDA device runs, or the operators that the CPU runs. */
void profile_begin(bool cuda) {
  const torch::profiler::impl::ProfilerConfig config(torch::profiler::impl::ProfilerState::KINETO);
  profiler::prepareProfiler(config, activities(cuda));
  profiler::enableProfiler(config, activities(cuda), {at::RecordScope::FUNCTION});
}

/**
 * Stops recording. Returns bytes of text: a line for each kernel with its name, its number of runs and its total
 * nanoseconds, separated by tabs.
 */
at::Tensor profile_end(bool cuda) {
  struct Total {
    int64_t count = 0;
    uint64_t nanoseconds = 0;
  };
  std::map<std::string, Total> totals;
  const auto result = profiler::disableProfiler();
  for (const auto& event : result->events()) {
    if ((event.deviceType() == c10::DeviceType::CUDA) != cuda) continue;
    Total& total = totals[event.name()];
    total.count += 1;
    total.nanoseconds += event.durationNs();
  }
  std::ostringstream text;
  for (const auto& [name, total] : totals) text << name << '\t' << total.count << '\t' << total.nanoseconds << '\n';
  const std::string lines = text.str();
  at::Tensor bytes = at::empty({static_cast<int64_t>(lines.size())}, at::kByte);
  std::copy(lines.begin(), lines.end(), bytes.data_ptr<uint8_t>());
  return bytes;
}

/** Returns unused memory to the device and starts to measure the peak memory of tensors. */
void memory_begin(at::Device device) {
  auto* allocator = c10::getDeviceAllocator(device.type());
  // The allocator waits for the stream that memory was taken on, which need not be the one that reads it (cuda/graph.cc).
  c10::impl::VirtualGuardImpl(device.type()).synchronizeDevice(device.index());
  allocator->emptyCache();
  allocator->resetPeakStats(device.index());
}

/** Since `memory_begin`: the most bytes that tensors used at once, and the most that were reserved for them. */
std::tuple<int64_t, int64_t> memory_peak(at::Device device) {
  const auto stats = c10::getDeviceAllocator(device.type())->getDeviceStats(device.index());
  return {stats.allocated_bytes[0].peak, stats.reserved_bytes[0].peak};
}

TORCH_LIBRARY_FRAGMENT(alitok, library) {
  library.def("profile_begin(bool cuda) -> ()", profile_begin);
  library.def("profile_end(bool cuda) -> Tensor", profile_end);
  library.def("memory_begin(Device device) -> ()", memory_begin);
  library.def("memory_peak(Device device) -> (int, int)", memory_peak);
}

}  // namespace
}  // namespace alitok
