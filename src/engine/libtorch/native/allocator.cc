// The allocator of CPU tensors. The system's allocator returns large blocks to the kernel at once, and gets them back page
// by page and cleared, which costs a training step about as much as its arithmetic. This one keeps large blocks for the
// next tensor of about that size, and asks for huge pages, because decoding reads all weights at each step.
#include <ATen/ATen.h>
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <torch/library.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace {

constexpr size_t LARGE = 64 << 10; // smaller blocks are left to the system
constexpr size_t ALIGNMENT = 64;   // of every tensor, for vectors; the space before it holds the block's size

/** Rounds up, by an eighth at most, so that blocks of about the same size are interchangeable. */
size_t size_class(size_t bytes) {
  size_t step = LARGE / 8;
  while (step * 16 <= bytes) step *= 2;
  return (bytes + step - 1) / step * step;
}

#if defined(__linux__)
void* from_system(size_t bytes) {
  constexpr size_t HUGE_PAGE = 2 << 20;
  if (bytes < HUGE_PAGE) {
    void* block = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return block == MAP_FAILED ? nullptr : block;
  }
  // Only aligned stretches become huge pages, so take one more and give the ends back.
  const size_t room = bytes + HUGE_PAGE;
  void* mapped = mmap(nullptr, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  const auto start = reinterpret_cast<uintptr_t>(mapped);
  const uintptr_t block = (start + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
  if (block > start) munmap(mapped, block - start);
  munmap(reinterpret_cast<void*>(block + bytes), start + room - block - bytes);
  madvise(reinterpret_cast<void*>(block), bytes, MADV_HUGEPAGE);
  return reinterpret_cast<void*>(block);
}
void to_system(void* block, size_t bytes) { munmap(block, bytes); }
#else
void* from_system(size_t bytes) {
  void* block;
  return posix_memalign(&block, ALIGNMENT, bytes) == 0 ? block : nullptr;
}
void to_system(void* block, size_t) { std::free(block); }
#endif

/** Large blocks that no tensor uses, by size. */
class Cache {
 public:
  void* take(size_t bytes) {
    {
      const std::lock_guard<std::mutex> lock(mutex);
      const auto found = blocks.lower_bound(bytes);
      if (found != blocks.end() && found->first <= bytes + bytes / 4) {
        char* block = found->second;
        held -= found->first;
        blocks.erase(found);
        return block;
      }
    }
    void* block = from_system(bytes);
    if (block) {
      std::memcpy(block, &bytes, sizeof bytes);
      return block;
    }
    clear();
    block = from_system(bytes);
    TORCH_CHECK(block, "can't allocate memory: ", bytes, " bytes");
    std::memcpy(block, &bytes, sizeof bytes);
    return block;
  }

  void give(char* block) {
    size_t bytes;
    std::memcpy(&bytes, block, sizeof bytes);
    {
      const std::lock_guard<std::mutex> lock(mutex);
      if (held + bytes <= limit) {
        held += bytes;
        blocks.emplace(bytes, block);
        return;
      }
    }
    to_system(block, bytes);
  }

  void keep_at_most(size_t bytes) {
    limit = bytes;
    if (held > limit) clear();
  }

  void clear() {
    const std::lock_guard<std::mutex> lock(mutex);
    for (const auto& [bytes, block] : blocks) to_system(block, bytes);
    blocks.clear();
    held = 0;
  }

 private:
  std::mutex mutex;
  std::multimap<size_t, char*> blocks;
  size_t held = 0, limit = 0;
};

// Never destroyed: tensors may be freed until the process ends.
Cache& cache = *new Cache();

class CachingAllocator final : public c10::Allocator {
 public:
  // PyTorch 2.3 removed the `const` and added copy_data, so these three cannot be marked `override`.
  c10::DataPtr allocate(size_t bytes) const { return take(bytes); }
  c10::DataPtr allocate(size_t bytes) { return take(bytes); }
  void copy_data(void* to, const void* from, size_t bytes) const { std::memcpy(to, from, bytes); }
  c10::DeleterFnPtr raw_deleter() const override { return &give; }

 private:
  static c10::DataPtr take(size_t bytes) {
    if (bytes == 0) return {nullptr, nullptr, &give, c10::DeviceType::CPU};
    void* block;
    if (bytes + ALIGNMENT > LARGE) {
      block = cache.take(size_class(bytes + ALIGNMENT));
    } else {
      TORCH_CHECK(posix_memalign(&block, ALIGNMENT, bytes + ALIGNMENT) == 0, "can't allocate memory: ", bytes, " bytes");
      std::memset(block, 0, sizeof(size_t));
    }
    void* data = static_cast<char*>(block) + ALIGNMENT;
    return {data, data, &give, c10::DeviceType::CPU};
  }

  static void give(void* data) {
    if (!data) return;
    char* block = static_cast<char*>(data) - ALIGNMENT;
    size_t bytes;
    std::memcpy(&bytes, block, sizeof bytes);
    if (bytes == 0) std::free(block);
    else cache.give(block);
  }
};

/** Makes this the allocator of all CPU tensors from now on; it keeps at most `bytes` of unused memory. */
void keep_memory(int64_t bytes) {
  static bool installed = false;
  if (!installed) c10::SetCPUAllocator(new CachingAllocator(), 1);
  installed = true;
  cache.keep_at_most(static_cast<size_t>(bytes));
}

/** Returns all memory that is now unused to the system. */
void release_memory() { cache.clear(); }

TORCH_LIBRARY_FRAGMENT(alitok, library) {
  library.def("keep_memory(int bytes) -> ()", keep_memory);
  library.def("release_memory() -> ()", release_memory);
}

}  // namespace
