// Runs a loop on torch's threads; kernels see no more of torch than this.
#pragma once
#include <cstdint>
#include <type_traits>

#include "math/portable.h"

namespace lierope {

using RangeBody = void (*)(void* context, int64_t begin, int64_t end);

// Splits [0, n) into ranges of at least `grain` and runs body on each, on as many threads as torch
// has. Where the ranges are cut depends on the number of threads: results must not.
void parallel_ranges(int64_t n, int64_t grain, RangeBody body, void* context);

inline namespace LIEROPE_ISA {

template <class F>
inline void parallel_for(int64_t n, int64_t grain, F&& f) {
  auto body = [](void* context, int64_t begin, int64_t end) {
    (*static_cast<std::remove_reference_t<F>*>(context))(begin, end);
  };
  parallel_ranges(n, grain, body, const_cast<void*>(static_cast<const void*>(&f)));
}

}  // namespace LIEROPE_ISA
}  // namespace lierope
