// Rotations held one token a lane, applied to rows of q and k, forward and backward.
#pragma once
#include "../math/skew_products.h"
#include "lanes.h"
#include "rows.h"

namespace lierope::cpu::LIEROPE_ISA {

// Blocks that fill a row of lanes together: read and written as one.
template <class T, int N>
inline constexpr int kBlocksAtOnce = kLanes<T> % N == 0 ? kLanes<T> / N : 1;

// y = R x for M blocks.
template <class Storage, class T, int N, int M>
LIEROPE_HD void rotate_blocks_of_rows(const Vec<T>* r, const LaneRows<const Storage>& x,
                                      const LaneRows<Storage>& y) {
  Vec<T> in[M * N], out[M * N];
  load_rows<M * N, Storage, T>(x, in);
  LIEROPE_UNROLL
  for (int m = 0; m < M; ++m) {
    LIEROPE_UNROLL
    for (int i = 0; i < N; ++i) out[m * N + i] = r[(m * N + i) * N] * in[m * N];
    LIEROPE_UNROLL
    for (int j = 1; j < N; ++j) LIEROPE_UNROLL
    for (int i = 0; i < N; ++i) out[m * N + i] += r[(m * N + i) * N + j] * in[m * N + j];
  }
  store_rows<M * N, Storage, T>(y, out);
}

// x_grad = R^T y_grad for M blocks; w += x_grad x^T - x x_grad^T.
template <class Storage, class T, int N, int M>
LIEROPE_HD void rotate_back_blocks_of_rows(const Vec<T>* r, const LaneRows<const Storage>& x,
                                           const LaneRows<const Storage>& y_grad,
                                           const LaneRows<Storage>& x_grad, Vec<T>* w) {
  constexpr int size = math::kTriangle<N>;
  Vec<T> in[M * N], grad[M * N], out[M * N];
  load_rows<M * N, Storage, T>(y_grad, grad);
  LIEROPE_UNROLL
  for (int m = 0; m < M; ++m) {
    LIEROPE_UNROLL
    for (int j = 0; j < N; ++j) out[m * N + j] = r[m * N * N + j] * grad[m * N];
    LIEROPE_UNROLL
    for (int i = 1; i < N; ++i) LIEROPE_UNROLL
    for (int j = 0; j < N; ++j) out[m * N + j] += r[(m * N + i) * N + j] * grad[m * N + i];
  }
  load_rows<M * N, Storage, T>(x, in);
  LIEROPE_UNROLL
  for (int m = 0; m < M; ++m) {
    const Vec<T>*a = out + m * N, *b = in + m * N;
    LIEROPE_UNROLL
    for (int i = 0; i < N; ++i) LIEROPE_UNROLL
    for (int j = i + 1; j < N; ++j) {
      Vec<T>& sum = w[m * size + math::Skew<N>::at(i, j)];
      sum = sum + a[i] * b[j] - a[j] * b[i];
    }
  }
  store_rows<M * N, Storage, T>(x_grad, out);
}

// The rows of one head that a rotation belongs to: features past the blocks are copied.
template <class Storage, class T, int N>
LIEROPE_NOINLINE void rotate_rows(const Vec<T>* r, int64_t blocks, int64_t features,
                                  const LaneRows<const Storage>& x, const LaneRows<Storage>& y) {
  constexpr int M = kBlocksAtOnce<T, N>;
  int64_t block = 0;
  for (; block + M <= blocks; block += M)
    rotate_blocks_of_rows<Storage, T, N, M>(r + block * N * N, x.at(block * N), y.at(block * N));
  for (; block < blocks; ++block)
    rotate_blocks_of_rows<Storage, T, N, 1>(r + block * N * N, x.at(block * N), y.at(block * N));
  for (int lane = 0; lane < x.count; ++lane)
    copy_row(x.row(lane), y.row(lane), blocks * N, features);
}

template <class Storage, class T, int N>
LIEROPE_NOINLINE void rotate_rows_back(const Vec<T>* r, int64_t blocks, int64_t features,
                                       const LaneRows<const Storage>& x,
                                       const LaneRows<const Storage>& y_grad,
                                       const LaneRows<Storage>& x_grad, Vec<T>* w) {
  constexpr int M = kBlocksAtOnce<T, N>, size = math::kTriangle<N>;
  int64_t block = 0;
  for (; block + M <= blocks; block += M) {
    const int64_t at = block * N;
    rotate_back_blocks_of_rows<Storage, T, N, M>(r + at * N, x.at(at), y_grad.at(at), x_grad.at(at),
                                                 w + block * size);
  }
  for (; block < blocks; ++block) {
    const int64_t at = block * N;
    rotate_back_blocks_of_rows<Storage, T, N, 1>(r + at * N, x.at(at), y_grad.at(at), x_grad.at(at),
                                                 w + block * size);
  }
  for (int lane = 0; lane < x.count; ++lane)
    copy_row(y_grad.row(lane), x_grad.row(lane), blocks * N, features);
}

}  // namespace lierope::cpu::LIEROPE_ISA
