// Banded Cayley solve of one skew matrix: y = P x with P = (I - S)(I + S)^-1 = 2 (I + S)^-1 - I.
#pragma once
#include <cstdint>

#include "element.h"

namespace lierope::math {
inline namespace LIEROPE_ISA {

// Elimination of I + S needs no pivoting. The symmetric part of I + S is I; the inverse of a Schur
// complement is a block of the inverse, so that its symmetric part stays >= I (Golub and Van Loan,
// Matrix Computations, 4th ed., section 4.1.4: positive definite unsymmetric systems). Every pivot
// is >= 1 and there is no division to guard.

// I + S within |i - j| <= width, later its factors: unit lower L, upper U with reciprocal pivots.
template <class T>
struct Band {
  T* data;  // (n, 2 width + 1)
  int64_t n, width;

  LIEROPE_HD T& at(int64_t i, int64_t j) const { return data[i * (2 * width + 1) + j - i + width]; }
  LIEROPE_HD int64_t first(int64_t i) const { return i > width ? i - width : 0; }
  LIEROPE_HD int64_t last(int64_t i) const { return i + width < n ? i + width + 1 : n; }
};

// s: (n, n), strict upper triangle; `sign` -1 gives I - S, the matrix of P^T.
template <class T>
inline void fill_band(const Band<T>& band, const T* s, T sign) {
  for (int64_t i = 0; i < band.n; ++i) {
    for (int64_t j = band.first(i); j < i; ++j) band.at(i, j) = -sign * s[j * band.n + i];
    band.at(i, i) = T(1);
    for (int64_t j = i + 1; j < band.last(i); ++j) band.at(i, j) = sign * s[i * band.n + j];
  }
}

template <class T>
inline void factor_band(const Band<T>& band) {
  for (int64_t k = 0; k < band.n; ++k) {
    const T reciprocal = T(1) / band.at(k, k);
    const int64_t end = band.last(k), count = end - k - 1;
    const T* __restrict upper = &band.at(k, k) + 1;
    for (int64_t i = k + 1; i < end; ++i) {
      const T f = band.at(i, k) * reciprocal;
      T* __restrict row = &band.at(i, k);
      row[0] = f;
      for (int64_t j = 0; j < count; ++j) row[1 + j] -= f * upper[j];
    }
    band.at(k, k) = reciprocal;
  }
}

// Solves (I + S) z = x in place and then writes y = 2 z - x to `y`; x, y: (n, V).
template <int V, class S, class T>
inline void cayley_solve(const Band<T>& band, S* x, S* y) {
  for (int64_t i = 0; i < band.n; ++i) {
    S sum[V];
    LIEROPE_UNROLL
    for (int v = 0; v < V; ++v) sum[v] = x[i * V + v];
    const T* row = &band.at(i, 0);
    for (int64_t j = band.first(i); j < i; ++j) {
      LIEROPE_UNROLL
      for (int v = 0; v < V; ++v) sum[v] = sum[v] - y[j * V + v] * row[j];
    }
    LIEROPE_UNROLL
    for (int v = 0; v < V; ++v) y[i * V + v] = sum[v];
  }
  for (int64_t i = band.n - 1; i >= 0; --i) {
    S sum[V];
    LIEROPE_UNROLL
    for (int v = 0; v < V; ++v) sum[v] = y[i * V + v];
    const T* row = &band.at(i, 0);
    for (int64_t j = i + 1; j < band.last(i); ++j) {
      LIEROPE_UNROLL
      for (int v = 0; v < V; ++v) sum[v] = sum[v] - y[j * V + v] * row[j];
    }
    LIEROPE_UNROLL
    for (int v = 0; v < V; ++v) y[i * V + v] = sum[v] * row[i];
  }
  for (int64_t i = 0; i < band.n * V; ++i) y[i] = T(2) * y[i] - x[i];
}

}  // namespace LIEROPE_ISA
}  // namespace lierope::math
