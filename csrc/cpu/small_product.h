// Products of matrices that fit the first-level cache: out (+)= A B, columns of B in the lanes.
#pragma once
#include "simd.h"

namespace lierope::cpu::LIEROPE_ISA {

// A is read one number at a time, so it may lie either way round; B and out have unit column
// stride.
template <class T>
struct ProductOperands {
  const T* a;
  int64_t a_row, a_inner;  // strides
  const T* b;
  int64_t b_inner;
  T* out;
  int64_t out_row;
  int64_t inner;  // columns of A, rows of B
};

// Accumulators, a row of B and one broadcast number fill 21 of 32 or 16 of 16 registers. Tiles of
// more rows load less but are slower for few columns of A: while one tile is stored and the next
// loaded, only what the processor looks ahead keeps its multipliers at work (Zen 4, inner = 8, in
// doubles: 6 x 4 vectors run at 65 % of the peak, 4 x 4 at 90 %).
inline constexpr int kProductRows = 4;
inline constexpr int kProductVectors = LIEROPE_VECTOR_BYTES == 64 ? 4 : 3;

template <class T, bool add, int R, int V>
LIEROPE_HD void product_tile(const ProductOperands<T>& p, int64_t row, int64_t column) {
  constexpr int L = kLanes<T>;
  Vec<T> sum[R][V];
  T* out = p.out + row * p.out_row + column;
  LIEROPE_UNROLL
  for (int r = 0; r < R; ++r) {
    LIEROPE_UNROLL
    for (int v = 0; v < V; ++v) sum[r][v] = add ? load<T>(out + r * p.out_row + v * L) : Vec<T>{};
  }
  const T* a = p.a + row * p.a_row;
  const T* b = p.b + column;
  for (int64_t k = 0; k < p.inner; ++k) {
    Vec<T> right[V];
    LIEROPE_UNROLL
    for (int v = 0; v < V; ++v) right[v] = load<T>(b + v * L);
    LIEROPE_UNROLL
    for (int r = 0; r < R; ++r) {
      const Vec<T> left = broadcast(a[r * p.a_row]);
      LIEROPE_UNROLL
      for (int v = 0; v < V; ++v) sum[r][v] = left * right[v] + sum[r][v];
    }
    a += p.a_inner;
    b += p.b_inner;
  }
  LIEROPE_UNROLL
  for (int r = 0; r < R; ++r) {
    LIEROPE_UNROLL
    for (int v = 0; v < V; ++v) store<T>(out + r * p.out_row + v * L, sum[r][v]);
  }
}

template <class T, bool add, int V>
LIEROPE_HD void product_columns(const ProductOperands<T>& p, int64_t rows, int64_t column) {
  int64_t row = 0;
  for (; row + kProductRows <= rows; row += kProductRows)
    product_tile<T, add, kProductRows, V>(p, row, column);
  for (; row + 2 <= rows; row += 2) product_tile<T, add, 2, V>(p, row, column);
  for (; row < rows; ++row) product_tile<T, add, 1, V>(p, row, column);
}

// `columns` is a multiple of the lanes.
template <class T, bool add>
__attribute__((noinline)) inline void small_product(const ProductOperands<T>& p, int64_t rows,
                                                    int64_t columns) {
  constexpr int L = kLanes<T>, V = kProductVectors;
  for (int64_t column = 0; column < columns;) {
    const int64_t left = (columns - column) / L;
    if (V == 4 && left >= 4) {
      product_columns<T, add, V>(p, rows, column);
      column += V * L;
    } else if (left == 3 || (V == 3 && left > 4)) {  // 4 are twice 2, rather than 3 and 1
      product_columns<T, add, 3>(p, rows, column);
      column += 3 * L;
    } else if (left >= 2) {
      product_columns<T, add, 2>(p, rows, column);
      column += 2 * L;
    } else {
      product_columns<T, add, 1>(p, rows, column);
      column += L;
    }
  }
}

}  // namespace lierope::cpu::LIEROPE_ISA
