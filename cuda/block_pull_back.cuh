// W0 of a matrix that a square of threads shares, from the gradient of its rotation.
#pragma once
#include "block_launch.cuh"

namespace lierope::cuda {

// w = R^T G - G^T R for E = R - I in m0; G goes to m1.
template <class T, int TS>
__device__ __forceinline__ void block_pull_back(const BlockExponential<T, TS>& matrix,
                                                const T* grad, Kept<T, TS>& w) {
  const Tiles<T, TS>& at = matrix.at;
  T *m0 = matrix.m0, *m1 = matrix.m1;
  each_element(at, at.side, at.side, [&](int i, int j) {
    m1[i * at.stride + j] = i < at.n && j < at.n ? grad[int64_t(i) * at.n + j] : T(0);
  });
  __syncthreads();
  HalfTile<T, TS> sum = zero_half<T, TS>();
  add_half_product<1>(at, sum, m0, m1, at.side);
  add_half_product<-1>(at, sum, m1, m0, at.side);
  complete<-1>(at, sum);
  w = sum;
  w.set([&](int e) { return w[e] + (matrix.entry(m1, e) - matrix.mirrored_entry(m1, e)); });
  __syncthreads();
}

}  // namespace lierope::cuda
