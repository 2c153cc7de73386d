// Which form of the exponential takes matrices of a side: registers of one thread, or a block.
#pragma once
#include "block_launch.cuh"
#include "thread_exponential.cuh"

namespace lierope::cuda {

// The largest side whose matrix one thread holds in registers.
template <class T>
inline constexpr int kThreadLargest = sizeof(T) == 4 ? 8 : 4;

// f(N) for a matrix that a thread holds.
template <class T, class F>
inline void with_thread_side(int64_t n, F&& f) {
  switch (n) {
    case 1: return f(std::integral_constant<int, 1>{});
    case 2: return f(std::integral_constant<int, 2>{});
    case 3: return f(std::integral_constant<int, 3>{});
    case 4: return f(std::integral_constant<int, 4>{});
    default: break;
  }
  if constexpr (kThreadLargest<T> == 8) {
    switch (n) {
      case 5: return f(std::integral_constant<int, 5>{});
      case 6: return f(std::integral_constant<int, 6>{});
      case 7: return f(std::integral_constant<int, 7>{});
      case 8: return f(std::integral_constant<int, 8>{});
      default: break;
    }
  }
}

// Tiles of 8 keep the arithmetic busy, tiles of 4 leave room for doubles.
template <class T, class F>
inline void with_tile(int64_t n, F&& f) {
  if (sizeof(T) == 4 ? n > 24 : n > 64)
    f(std::integral_constant<int, 8>{});
  else
    f(std::integral_constant<int, 4>{});
}

// For `count` matrices of side n.
template <class T>
inline int64_t exponential_workspace(int64_t count, int64_t n, const Launch& device) {
  int64_t bytes = 0;
  if (n <= kThreadLargest<T>) return 0;
  with_tile<T>(n, [&](auto tile) {
    bytes = BlockPlan<T, tile>(n, 2, nullptr).workspace_bytes(count, device);
  });
  return bytes;
}

}  // namespace lierope::cuda
