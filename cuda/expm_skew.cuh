// expm_skew and its adjoint: closed forms and register matrices one a thread, larger ones one for a
// square of threads.
#pragma once
#include "../csrc/params/expm_skew.h"
#include "block_pull_back.cuh"
#include "exponential_sides.cuh"
#include "thread_staging.cuh"

namespace lierope::cuda {

template <class T, int N>
__device__ __forceinline__ void triangle_of(const T* matrix, T* triangle) {
  LIEROPE_EACH(i, 0, N)
  LIEROPE_EACH(j, i + 1, N) triangle[SkewTriangle<T, N>::index(i, j)] = matrix[i * N + j];
}

template <class T, int N>
__global__ void __launch_bounds__(kMatrixThreads, kThreadOccupancy<T, N>)
    expm_skew_threads(ExpmSkewParams p) {
  LIEROPE_DYNAMIC_SHARED(T, slots);
  const int64_t first = int64_t(blockIdx.x) * kMatrixThreads;
  const int count = matrices_left(p.count, first);
  stage_in<N>(slots, static_cast<const T*>(p.a) + first * N * N, count);
  __syncthreads();
  if (int(threadIdx.x) < count) {
    T a[kTriangleRoom<N>], matrix[N * N];
    read_slot<N>(own_slot<N>(slots), matrix);
    triangle_of<T, N>(matrix, a);
    thread_exponential<N>(static_cast<const T*>(a), matrix);
    write_slot<N>(own_slot<N>(slots), matrix);
  }
  __syncthreads();
  stage_out<N>(slots, static_cast<T*>(p.r) + first * N * N, count);
}

template <class T, int N>
__global__ void __launch_bounds__(kMatrixThreads, kThreadOccupancy<T, N>)
    expm_skew_backward_threads(ExpmSkewBackwardParams p) {
  LIEROPE_DYNAMIC_SHARED(T, slots);
  const int64_t first = int64_t(blockIdx.x) * kMatrixThreads;
  const int count = matrices_left(p.count, first);
  const bool mine = int(threadIdx.x) < count;
  T* slot = own_slot<N>(slots);
  T a[kTriangleRoom<N>], w[kTriangleRoom<N>];
  stage_in<N>(slots, static_cast<const T*>(p.a) + first * N * N, count);
  __syncthreads();
  if (mine) triangle_of<T, N>(slot, a);
  __syncthreads();
  stage_in<N>(slots, static_cast<const T*>(p.grad) + first * N * N, count);
  __syncthreads();
  if (mine) {
    // w is twice W0, so what comes out is twice Abar.
    thread_pull_back<N>(static_cast<const T*>(a), [&](int i, int j) { return slot[i * N + j]; }, w);
    thread_adjoint<N>(static_cast<const T*>(a), w);
    LIEROPE_EACH(i, 0, N)
    LIEROPE_EACH(j, 0, N) slot[i * N + j] = i < j ? w[SkewTriangle<T, N>::index(i, j)] : T(0);
  }
  __syncthreads();
  stage_out<N>(slots, static_cast<T*>(p.out) + first * N * N, count);
}

// The strict upper triangle of matrix `index`.
template <class T>
struct UpperTriangle {
  const T* a;

  template <int TS>
  __device__ __forceinline__ void operator()(const Tiles<T, TS>& at, T* out, T factor) const {
    fill_skew(at, out, factor, [&](int i, int j) { return a[int64_t(i) * at.n + j]; });
  }
};

template <class T, int TS>
__global__ void __launch_bounds__(kBlockThreads<T, TS>, kBlockOccupancy<T, TS>)
    expm_skew_block(ExpmSkewParams p, BlockPlan<T, TS> plan) {
  LIEROPE_DYNAMIC_SHARED(T, shared);
  each_matrix(plan, p.count, [&](int64_t index, bool wanted) {
    const int64_t place = index * plan.n * plan.n;
    BlockExponential<T, TS> matrix = plan.matrix(shared);
    matrix.template exponential<1, true>(UpperTriangle<T>{static_cast<const T*>(p.a) + place});
    if (wanted) read_square(matrix.at, matrix.m0, static_cast<T*>(p.r) + place);
  });
}

template <class T, int TS>
__global__ void __launch_bounds__(kBlockThreads<T, TS>, kBlockOccupancy<T, TS>)
    expm_skew_backward_block(ExpmSkewBackwardParams p, BlockPlan<T, TS> plan) {
  LIEROPE_DYNAMIC_SHARED(T, shared);
  each_matrix(plan, p.count, [&](int64_t index, bool wanted) {
    const int64_t place = index * plan.n * plan.n;
    const UpperTriangle<T> load{static_cast<const T*>(p.a) + place};
    plan.matrix(shared).template exponential<1, false>(load);
    const BlockExponential<T, TS> forward = plan.matrix(shared);
    Kept<T, TS> w(forward.at, forward.room.kept, kKeptW);
    block_pull_back(forward, static_cast<const T*>(p.grad) + place, w);
    BlockExponential<T, TS> backward = plan.matrix(shared);
    backward.adjoint(load, w);
    write_skew(backward.at, backward.m1, w);
    __syncthreads();
    T* out = static_cast<T*>(p.out) + place;
    if (wanted)
      each_element(backward.at, plan.n, plan.n, [&](int i, int j) {
        out[int64_t(i) * plan.n + j] = i < j ? backward.m1[i * backward.at.stride + j] : T(0);
      });
  });
}

template <class T>
void launch_expm_skew(const ExpmSkewParams& p, const Launch& launch) {
  if (p.n <= kThreadLargest<T>)
    return with_thread_side<T>(p.n, [&](auto n) {
      LIEROPE_LAUNCH((expm_skew_threads<T, n>), blocks_for(p.count, kMatrixThreads), kMatrixThreads,
                     (MatrixSlots<T, n>::bytes), launch, p);
    });
  with_tile<T>(p.n, [&](auto tile) {
    const BlockPlan<T, tile> plan(p.n, 2, launch.workspace);
    LIEROPE_LAUNCH((expm_skew_block<T, tile>), plan.grid(p.count, launch), plan.threads(),
                   plan.shared_bytes(), launch, p, plan);
  });
}

template <class T>
void launch_expm_skew_backward(const ExpmSkewBackwardParams& p, const Launch& launch) {
  if (p.n <= kThreadLargest<T>)
    return with_thread_side<T>(p.n, [&](auto n) {
      LIEROPE_LAUNCH((expm_skew_backward_threads<T, n>), blocks_for(p.count, kMatrixThreads),
                     kMatrixThreads, (MatrixSlots<T, n>::bytes), launch, p);
    });
  with_tile<T>(p.n, [&](auto tile) {
    const BlockPlan<T, tile> plan(p.n, 2, launch.workspace);
    LIEROPE_LAUNCH((expm_skew_backward_block<T, tile>), plan.grid(p.count, launch), plan.threads(),
                   plan.shared_bytes(), launch, p, plan);
  });
}

void expm_skew(const ExpmSkewParams& p, const Launch& launch) {
  if (p.n == 0) return;
  p.is_double ? launch_expm_skew<double>(p, launch) : launch_expm_skew<float>(p, launch);
}
void expm_skew_backward(const ExpmSkewBackwardParams& p, const Launch& launch) {
  if (p.n == 0) return;
  p.is_double ? launch_expm_skew_backward<double>(p, launch)
              : launch_expm_skew_backward<float>(p, launch);
}
int64_t expm_skew_workspace(const ExpmSkewParams& p, const Launch& device) {
  return p.is_double ? exponential_workspace<double>(p.count, p.n, device) : 0;
}
int64_t expm_skew_backward_workspace(const ExpmSkewBackwardParams& p, const Launch& device) {
  return p.is_double ? exponential_workspace<double>(p.count, p.n, device) : 0;
}

}  // namespace lierope::cuda
