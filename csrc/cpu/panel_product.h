// Products of panel matrices by register tiles: the left operand is read by broadcast, the right
// one by vectors.
#pragma once
#include "panel_layout.h"

namespace lierope::cpu::LIEROPE_ISA {

// What the left operand stores. Since it is read by broadcast, reading it transposed, or from its
// lower part alone, costs nothing.
enum class Left { plain, transposed, symmetric, skew };

enum class Part { all, lower };  // of the result

// Input of the next matrix, to be prefetched during the products of this one.
struct Ahead {
  const char *next = nullptr, *end = nullptr;

  Ahead() = default;
  Ahead(const void* first, const void* last)
      : next(static_cast<const char*>(first)), end(static_cast<const char*>(last)) {}

  LIEROPE_HD void lines(int count) {
    for (; count > 0 && next < end; --count, next += 64) __builtin_prefetch(next, 0, 2);
  }
};

template <class Y>
struct Factors {
  using E = typename Y::Element;
  const E* left;
  int left_stride;
  const E* right;
  int right_stride;
  int rows, inner, columns;  // rows: a multiple of kRowStep; columns: of whole vectors
  Ahead* ahead = nullptr;
};

// What becomes of a finished product v: out = scale * v + sum weight[i] * term[i].
template <class Y>
struct Finish {
  using E = typename Y::Element;
  using V = typename Y::Vector;
  E* out;
  int out_stride;
  E scale = E{} + typename Y::Number(1);
  int terms = 0;
  const E* term[4] = {};
  typename Y::Number weight[4] = {};
  int term_stride = 0;
  // With one matrix a lane, lanes that need no further step keep what `old` holds.
  const E* old = nullptr;
  math::Bits<E> active = {};

  LIEROPE_HD void operator()(int i, int j, V v) const {
    const int64_t at = int64_t(i) * term_stride + j;
    v = scale * v;
    for (int t = 0; t < terms; ++t) v += weight[t] * get<Y>(term[t] + at);
    if constexpr (Y::kLanewise)
      if (old != nullptr) v = active != 0 ? v : old[at];
    put<Y>(out + int64_t(i) * out_stride + j, v);
  }
};

// sum += (or -=) the outer product of M elements of a column of the left operand, `step` apart, and
// NV vectors of a row of the right one.
template <class Y, int M, int NV, bool subtract>
LIEROPE_HD void accumulate(typename Y::Vector (&sum)[M][NV], const typename Y::Element* x,
                           int64_t step, const typename Y::Element* row) {
  typename Y::Vector b[NV];
  LIEROPE_UNROLL
  for (int v = 0; v < NV; ++v) b[v] = get<Y>(row + v * Y::kWidth);
  LIEROPE_UNROLL
  for (int r = 0; r < M; ++r) {
    const typename Y::Element e = x[r * step];
    LIEROPE_UNROLL
    for (int v = 0; v < NV; ++v) {
      if constexpr (subtract)
        sum[r][v] -= e * b[v];
      else
        sum[r][v] += e * b[v];
    }
  }
}

// Rows i .. i + M - 1 and NV vectors from column j on. Sums run over k upwards whatever the left
// operand stores, so that exp(-A) = exp(A)^T to the bit.
template <class Y, Left A, int M, int NV>
LIEROPE_HD void tile(const Factors<Y>& f, const Finish<Y>& finish, int i, int j) {
  typename Y::Vector sum[M][NV] = {};
  const typename Y::Element* row = f.right + j;
  int stored = 0;  // the k whose elements (i, k) are stored as such
  if constexpr (A == Left::plain) stored = f.inner;
  if constexpr (A == Left::symmetric || A == Left::skew) stored = band_end<Y>(i, f.inner);
  const typename Y::Element* x = f.left + int64_t(i) * f.left_stride;
  LIEROPE_KEEP_LOOP for (int k = 0; k < stored; ++k, ++x, row += f.right_stride)
      accumulate<Y, M, NV, false>(sum, x, f.left_stride, row);
  if constexpr (A != Left::plain) {
    x = f.left + int64_t(stored) * f.left_stride + i;
    LIEROPE_KEEP_LOOP for (int k = stored; k < f.inner;
                           ++k, x += f.left_stride, row += f.right_stride)
        accumulate<Y, M, NV, A == Left::skew>(sum, x, 1, row);
  }
  LIEROPE_UNROLL
  for (int r = 0; r < M; ++r) LIEROPE_UNROLL
  for (int v = 0; v < NV; ++v) finish(i + r, j + v * Y::kWidth, sum[r][v]);
}

// Rows i .. i + M - 1 up to column `end`.
template <class Y, Left A, int M>
LIEROPE_HD void tiles_of_rows(const Factors<Y>& f, const Finish<Y>& finish, int i, int end) {
  constexpr int W = Y::kWidth;
  if constexpr (!Y::kLanewise)
    if (f.ahead != nullptr) f.ahead->lines(8);
  for (int j = 0; j < end;) {
    const int left = (end - j) / W;
    if constexpr (Y::kTileVectors == 4) {
      if (left >= 4) {
        tile<Y, A, M, 4>(f, finish, i, j);
        j += 4 * W;
        continue;
      }
    } else if constexpr (!Y::kLanewise) {
      if (Y::kTileVectors == 3 ? left == 3 || left > 4 : left == 3) {
        tile<Y, A, M, 3>(f, finish, i, j);
        j += 3 * W;
        continue;
      }
    }
    if (left >= 2) {
      tile<Y, A, M, 2>(f, finish, i, j);
      j += 2 * W;
    } else {
      tile<Y, A, M, 1>(f, finish, i, j);
      j += W;
    }
  }
}

template <class Y, Left A, Part P>
__attribute__((noinline)) void multiply(const Factors<Y>& f, const Finish<Y>& finish) {
  constexpr int M = Y::kTileRows;
  for (int i = 0; i < f.rows;) {
    const int end = P == Part::lower ? band_end<Y>(i, f.columns) : f.columns;
    const int left = f.rows - i;
    if constexpr (!Y::kLanewise && kRegisters == 32) {
      if (end == Y::kWidth && left >= 2 * M && (P == Part::all || kBand<Y> >= 2 * M)) {
        tile<Y, A, 2 * M, 1>(f, finish, i, 0);  // one vector: twice the rows, to fill the pipes
        i += 2 * M;
        continue;
      }
    }
    if (left >= M) {
      tiles_of_rows<Y, A, M>(f, finish, i, end);
      i += M;
    } else if constexpr (M > kRowStep) {
      tiles_of_rows<Y, A, kRowStep>(f, finish, i, end);
      i += kRowStep;
    }
  }
}

}  // namespace lierope::cpu::LIEROPE_ISA
