// Rotations held one token a lane, applied to rows of q and k, forward and backward.
#pragma once
#include "../math/skew_products.h"
#include "lanes.h"

namespace lierope::cpu::LIEROPE_ISA {

// Blocks that fill a row of lanes together: read and written as one.
template <class T, int N>
inline constexpr int kBlocksAtOnce = kLanes<T> % N == 0 ? kLanes<T> / N : 1;

// out = r in for M blocks.
template <class T, int N, int M>
LIEROPE_HD void turn(const Vec<T>* r, const Vec<T>* in, Vec<T>* out) {
  LIEROPE_UNROLL
  for (int m = 0; m < M * N; m += N) {
    LIEROPE_UNROLL
    for (int i = 0; i < N; ++i) out[m + i] = r[(m + i) * N] * in[m];
    LIEROPE_UNROLL
    for (int j = 1; j < N; ++j) {
      LIEROPE_UNROLL
      for (int i = 0; i < N; ++i) out[m + i] += r[(m + i) * N + j] * in[m + j];
    }
  }
}

// y = R x for M blocks.
template <class T, int N, int M>
LIEROPE_HD void rotate_blocks_of_rows(const Vec<T>* r, const LaneRows<const T>& x,
                                      const LaneRows<T>& y) {
  Vec<T> in[M * N], out[M * N];
  load_rows<M * N, T>(x, in);
  turn<T, N, M>(r, in, out);
  store_rows<M * N, T>(y, out);
}

// x_grad = r y_grad, r = R^T, for M blocks; w += y_grad y^T - y y_grad^T.
template <class T, int N, int M>
LIEROPE_HD void rotate_blocks_back(const Vec<T>* r, const LaneRows<const T>& y,
                                   const LaneRows<const T>& y_grad, const LaneRows<T>& x_grad,
                                   Vec<T>* w) {
  Vec<T> in[M * N], grad[M * N], out[M * N];
  load_rows<M * N, T>(y_grad, grad);
  load_rows<M * N, T>(y, in);
  LIEROPE_UNROLL
  for (int m = 0; m < M; ++m) {
    const Vec<T>*a = grad + m * N, *b = in + m * N;
    LIEROPE_UNROLL
    for (int i = 0; i < N; ++i) {
      LIEROPE_UNROLL
      for (int j = i + 1; j < N; ++j) {
        Vec<T>& sum = w[m * math::kTriangle<N> + math::Skew<N>::at(i, j)];
        sum = sum + a[i] * b[j] - a[j] * b[i];
      }
    }
  }
  turn<T, N, M>(r, grad, out);
  store_rows<M * N, T>(x_grad, out);
}

// Rows that come next: asked for a piece at a time while these are rotated, for rows of one token
// lie too far apart for the processor to foresee.
struct NextRows {
  const char* data;
  int64_t stride;  // in bytes
  int count;
  int element_size;

  LIEROPE_HD void prefetch(int64_t first, int64_t features) const {
    const int64_t begin = first * element_size, end = begin + features * element_size;
    for (int row = 0; row < count; ++row)
      for (int64_t i = begin; i < end; i += 64) __builtin_prefetch(data + row * stride + i, 0, 2);
  }
};
template <class Storage>
LIEROPE_HD NextRows next_rows(const SomeRows<Storage>& rows) {
  return {reinterpret_cast<const char*>(rows.data), rows.stride * int64_t(sizeof(Storage)),
          rows.count, int(sizeof(Storage))};
}

// All blocks of the rows.
template <class T, int N>
LIEROPE_NOINLINE void rotate_rows(const Vec<T>* r, int64_t blocks, const LaneRows<const T>& x,
                                  const LaneRows<T>& y, const NextRows (&next)[2]) {
  constexpr int M = kBlocksAtOnce<T, N>;
  int64_t block = 0;
  for (; block + M <= blocks; block += M) {
    for (const NextRows& rows : next) rows.prefetch(block * N, M * N);
    rotate_blocks_of_rows<T, N, M>(r + block * N * N, x.at(block * N), y.at(block * N));
  }
  for (; block < blocks; ++block)
    rotate_blocks_of_rows<T, N, 1>(r + block * N * N, x.at(block * N), y.at(block * N));
}

template <class T, int N>
LIEROPE_NOINLINE void rotate_rows_back(const Vec<T>* r, int64_t blocks, const LaneRows<const T>& y,
                                       const LaneRows<const T>& y_grad, const LaneRows<T>& x_grad,
                                       Vec<T>* w, const NextRows (&next)[3]) {
  constexpr int M = kBlocksAtOnce<T, N>, size = math::kTriangle<N>;
  int64_t block = 0;
  for (; block + M <= blocks; block += M) {
    const int64_t at = block * N;
    for (const NextRows& rows : next) rows.prefetch(at, M * N);
    rotate_blocks_back<T, N, M>(r + at * N, y.at(at), y_grad.at(at), x_grad.at(at),
                                w + block * size);
  }
  for (; block < blocks; ++block) {
    const int64_t at = block * N;
    rotate_blocks_back<T, N, 1>(r + at * N, y.at(at), y_grad.at(at), x_grad.at(at),
                                w + block * size);
  }
}

// Features past the blocks.
template <class Storage>
LIEROPE_HD void copy_rest(const SomeRows<const Storage>& x, const SomeRows<Storage>& y,
                          int64_t rotated, int64_t features) {
  if (rotated == features) return;
  for (int lane = 0; lane < x.count; ++lane)
    copy_row(x.data + lane * x.stride, y.data + lane * y.stride, rotated, features);
}

}  // namespace lierope::cpu::LIEROPE_ISA
