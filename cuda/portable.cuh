// What kernels need of their surroundings: the CUDA runtime or, with LIEROPE_EMULATED, its
// emulation on the CPU.
#pragma once
#include <cstdint>

#include "../csrc/math/portable.h"
#include "../csrc/params/launch.h"

// LIEROPE_DYNAMIC_SHARED(T, name): the block's dynamic shared memory as T* name.
// LIEROPE_SHARED(T, name, count): T name[count] in shared memory (T* in the emulation).
// LIEROPE_LAUNCH(kernel, grid, block, shared_bytes, launch, arguments...): an empty grid launches
// nothing. A kernel whose template arguments hold commas stands in parentheses.
#if defined(LIEROPE_EMULATED)

#include "../tests/emulation/cuda_on_cpu.h"

#define LIEROPE_DYNAMIC_SHARED(T, name) T* const name = ::lierope::emulation::dynamic_shared<T>()
#define LIEROPE_SHARED(T, name, count) \
  static const char name##_key = 0;    \
  T* const name = ::lierope::emulation::static_shared<T>(&name##_key, count)
#define LIEROPE_ROLLED
#define LIEROPE_LAUNCH(kernel, grid, block, shared_bytes, launch, ...) \
  ::lierope::emulation::run_grid(kernel, grid, block, shared_bytes, launch, __VA_ARGS__)

#else

#include <cuda_runtime.h>

#include <utility>

#define LIEROPE_DYNAMIC_SHARED(T, name)                 \
  extern __shared__ __align__(16) char shared_memory[]; \
  T* const name = reinterpret_cast<T*>(shared_memory)
#define LIEROPE_SHARED(T, name, count) __shared__ T name[count]
#define LIEROPE_ROLLED _Pragma("unroll 1")
#define LIEROPE_LAUNCH(kernel, grid, block, shared_bytes, launch, ...) \
  ::lierope::cuda::run_grid(kernel, grid, block, shared_bytes, launch, __VA_ARGS__)

namespace lierope::cuda {

// Errors stay in the runtime, where the caller looks once all kernels are launched.
template <class... Parameters, class... Arguments>
void run_grid(void (*kernel)(Parameters...), dim3 grid, dim3 block, int64_t shared_bytes,
              const Launch& launch, Arguments&&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  const void* function = reinterpret_cast<const void*>(kernel);
  constexpr int64_t kWithoutAsking = 48 << 10;
  if (shared_bytes > kWithoutAsking &&
      cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           int(shared_bytes)) != cudaSuccess)
    return;
  [&](Parameters... values) {
    void* pointers[] = {&values...};
    cudaLaunchKernel(function, grid, block, pointers, size_t(shared_bytes),
                     static_cast<cudaStream_t>(launch.stream));
  }(Parameters(std::forward<Arguments>(arguments))...);
}

}  // namespace lierope::cuda

#endif

namespace lierope::cuda {

constexpr unsigned kFullWarp = 0xffffffffu;

// As many blocks as `items` need at `per_block` each, within the largest grid; kernels stride by
// the grid where that may be fewer.
inline unsigned blocks_for(int64_t items, int64_t per_block) {
  constexpr int64_t kLargestGrid = (int64_t(1) << 31) - 1;
  const int64_t blocks = (items + per_block - 1) / per_block;
  return unsigned(blocks < kLargestGrid ? blocks : kLargestGrid);
}

}  // namespace lierope::cuda
