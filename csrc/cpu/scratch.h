// Working memory of one thread: aligned for vectors, freed at the end of its scope.
#pragma once
#include <cstdint>
#include <cstdlib>

#include "../math/portable.h"
#include "../pages.h"

namespace lierope::cpu::LIEROPE_ISA {

template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t count) {
    const size_t bytes = (size_t(count) * sizeof(T) + 64) / 64 * 64;
    data_ = static_cast<T*>(std::aligned_alloc(64, bytes));
    if (data_ == nullptr) std::abort();  // kernels have no way to report; allocators do the same
    prefer_large_pages(data_, bytes);
  }
  ~Scratch() { std::free(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  operator T*() const { return data_; }

 private:
  T* data_;
};

}  // namespace lierope::cpu::LIEROPE_ISA
