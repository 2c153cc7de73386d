// Working memory that a thread keeps for its panel kernels.
#pragma once
#include <cstdint>
#include <cstdlib>

#include "../math/portable.h"

namespace lierope::cpu::LIEROPE_ISA {

// One block for one kernel at a time: fresh pages for each call would cost as much as a small
// batch.
class ThreadMemory {
 public:
  ~ThreadMemory() { std::free(block_); }
  char* at_least(size_t bytes) {
    if (bytes > size_) {
      std::free(block_);
      block_ = static_cast<char*>(std::malloc(bytes + kPage));
      if (block_ == nullptr) std::abort();  // kernels have no way to report
      size_ = bytes;
    }
    return block_ + (kPage - reinterpret_cast<uintptr_t>(block_) % kPage);
  }

 private:
  static constexpr size_t kPage = 4096;
  char* block_ = nullptr;
  size_t size_ = 0;
};

inline ThreadMemory& thread_memory() {
  static thread_local ThreadMemory memory;
  return memory;
}

}  // namespace lierope::cpu::LIEROPE_ISA
