// Sums over slices of the batch: each slice writes its own, and one pass adds them in fixed order.
#pragma once
#include "portable.cuh"

namespace lierope::cuda {

// Into how many slices to cut `rows` rows of work of `blocks` blocks each, so that the device has
// `wanted` blocks a multiprocessor.
inline int64_t slices_for(int64_t rows, int64_t blocks, int64_t wanted, const Launch& launch) {
  const int64_t most = rows < 65535 ? rows : 65535, target = wanted * launch.multiprocessors;
  const int64_t slices = blocks > 0 ? (target + blocks - 1) / blocks : 1;
  return slices < 1 || most < 1 ? 1 : slices < most ? slices : most;
}

template <class T>
__global__ void sum_slices(const T* partial, T* out, int64_t count, int64_t slices) {
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    T sum = 0;
    for (int64_t s = 0; s < slices; ++s) sum += partial[s * count + i];
    out[i] = sum;
  }
}
// out = the sum of `slices` tensors of `count` entries.
template <class T>
void launch_sum_slices(const T* partial, T* out, int64_t count, int64_t slices,
                       const Launch& launch) {
  LIEROPE_LAUNCH(sum_slices<T>, blocks_for(count, 256), 256, 0, launch, partial, out, count,
                 slices);
}

}  // namespace lierope::cuda
