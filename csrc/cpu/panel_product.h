// Products of panel matrices by register tiles.
#pragma once
#include "ahead.h"
#include "panel_layout.h"

namespace lierope::cpu::LIEROPE_ISA {

// What the left operand stores. Since it is read by broadcast, and only the right one by vectors,
// reading it transposed, or from its lower part alone, costs nothing.
enum class Left { plain, transposed, symmetric, skew };

enum class Part { all, lower };  // of the result

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

// What becomes of a finished product v: a callable (row, column, v). One type each, because a
// choice at run time would cost as much as several steps of a small product.
template <class Y>
struct Store {  // out = v
  using E = typename Y::Element;
  E* out;
  int stride;

  LIEROPE_HD void operator()(int i, int j, typename Y::Vector v) const {
    put<Y>(out + int64_t(i) * stride + j, v);
  }
};

template <class Y, int N>
struct StoreSum {  // out = v + sum weight[t] * term[t], all of one stride
  using E = typename Y::Element;
  E* out;
  int stride;
  const E* term[N];
  typename Y::Number weight[N];

  LIEROPE_HD void operator()(int i, int j, typename Y::Vector v) const {
    const int64_t at = int64_t(i) * stride + j;
    LIEROPE_UNROLL
    for (int t = 0; t < N; ++t) v += weight[t] * get<Y>(term[t] + at);
    put<Y>(out + at, v);
  }
};

// Each lane has its own number of steps: a lane that is done keeps its value. The largest number
// for all would give a small matrix the error of the largest one.
template <class Y>
LIEROPE_HD typename Y::Vector advance(math::Bits<typename Y::Element> active, typename Y::Vector v,
                                      typename Y::Vector old) {
  if constexpr (Y::kLanewise)
    return active != 0 ? v : old;
  else
    return v;
}

// For v = D D and old = D: out = D D + twice D, which is T^2 - I where D = T - I; else out = D D.
template <class Y, bool beside_identity>
struct StoreSquare {
  using E = typename Y::Element;
  E* out;
  int stride;
  const E* old;
  int old_stride;
  math::Bits<E> active;

  LIEROPE_HD void operator()(int i, int j, typename Y::Vector v) const {
    if constexpr (beside_identity || Y::kLanewise) {
      const typename Y::Vector d = get<Y>(old + int64_t(i) * old_stride + j);
      if constexpr (beside_identity) v += typename Y::Number(2) * d;
      v = advance<Y>(active, v, d);
    }
    put<Y>(out + int64_t(i) * stride + j, v);
  }
};

template <class Y>
struct StoreMean {  // out = (out + v) / 2
  using E = typename Y::Element;
  E* out;
  int stride;
  math::Bits<E> active;

  LIEROPE_HD void operator()(int i, int j, typename Y::Vector v) const {
    E* to = out + int64_t(i) * stride + j;
    const typename Y::Vector old = get<Y>(to);
    put<Y>(to, advance<Y>(active, typename Y::Number(0.5) * (old + v), old));
  }
};

// sum += (or -=) the outer product of M elements of a column of the left operand and NV vectors of
// a row of the right one. element(r) is the r-th of the former.
template <class Y, int M, int NV, bool subtract, class Element>
LIEROPE_HD void accumulate(typename Y::Vector (&sum)[M][NV], const typename Y::Element* row,
                           Element&& element) {
  typename Y::Vector b[NV];
  LIEROPE_UNROLL
  for (int v = 0; v < NV; ++v) b[v] = get<Y>(row + v * Y::kWidth);
  LIEROPE_UNROLL
  for (int r = 0; r < M; ++r) {
    const typename Y::Element e = element(r);
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
template <class Y, Left A, int M, int NV, class Finish>
LIEROPE_HD void tile(const Factors<Y>& f, const Finish& finish, int i, int j) {
  using E = typename Y::Element;
  typename Y::Vector sum[M][NV] = {};
  const E* row = f.right + j;
  int stored = 0;  // the k whose elements (i, k) are stored as such
  if constexpr (A == Left::plain) stored = f.inner;
  if constexpr (A == Left::symmetric || A == Left::skew) stored = band_end<Y>(i, f.inner);
  if constexpr (A != Left::transposed) {
    const int64_t step = f.left_stride;
    const E* x[M / 4];
    LIEROPE_UNROLL
    for (int q = 0; q < M / 4; ++q) {
      x[q] = f.left + (i + 4 * q) * step;
      // Hides how the pointers are related: an address register for each row would spill.
      asm("" : "+r"(x[q]));
    }
    LIEROPE_KEEP_LOOP for (int k = 0; k < stored; ++k, row += f.right_stride) {
      accumulate<Y, M, NV, false>(sum, row, [&](int r) { return x[r / 4][r % 4 * step]; });
      LIEROPE_UNROLL
      for (int q = 0; q < M / 4; ++q) ++x[q];
    }
  }
  if constexpr (A != Left::plain) {
    const E* x = f.left + int64_t(stored) * f.left_stride + i;
    LIEROPE_KEEP_LOOP for (int k = stored; k < f.inner;
                           ++k, x += f.left_stride, row += f.right_stride)
        accumulate<Y, M, NV, A == Left::skew>(sum, row, [&](int r) { return x[r]; });
  }
  LIEROPE_UNROLL
  for (int r = 0; r < M; ++r) LIEROPE_UNROLL
  for (int v = 0; v < NV; ++v) finish(i + r, j + v * Y::kWidth, sum[r][v]);
}

// Rows i .. i + M - 1 up to column `end`.
template <class Y, Left A, int M, class Finish>
LIEROPE_HD void tiles_of_rows(const Factors<Y>& f, const Finish& finish, int i, int end) {
  constexpr int W = Y::kWidth;
  if (f.ahead != nullptr) f.ahead->some_lines();
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

// By value: stores through a reference's pointers could change what it refers to, as far as the
// compiler knows.
template <class Y, Left A, Part P, class Finish>
__attribute__((noinline)) void multiply(const Factors<Y> f, const Finish finish) {
  constexpr int M = Y::kTileRows;
  for (int i = 0; i < f.rows;) {
    const int end = P == Part::lower ? band_end<Y>(i, f.columns) : f.columns;
    const int left = f.rows - i;
    if constexpr (!Y::kLanewise) {
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
