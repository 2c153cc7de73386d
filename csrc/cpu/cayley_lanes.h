// cayley and its adjoint for small matrices, one in each lane.
#pragma once
#include "../math/element.h"
#include "token_lanes.h"

namespace lierope::cpu::LIEROPE_ISA {

// Up to here a block of pivots would be more than half empty, or its divisions, which wait for each
// other, would take longer than all else.
inline constexpr int64_t kCayleyLanes = 8;

// (I + S)^-1 - I in place, as in gauss_jordan.h; a: (n, n), of which the upper triangle is given.
template <class V>
LIEROPE_HD void invert_lanes(V* a, int64_t n) {
  using T = math::Scalar<V>;
  for (int64_t i = 0; i < n; ++i) {
    a[i * n + i] = V{};
    for (int64_t j = i + 1; j < n; ++j) a[j * n + i] = -a[i * n + j];
  }
  for (int64_t k = 0; k < n; ++k) {
    V* __restrict row = a + k * n;
    const V less_one = row[k], reciprocal = T(1) / (T(1) + less_one);
    row[k] = T(0) * less_one + T(1);  // not 1: NaN for an infinite pivot
    for (int64_t j = 0; j < n; ++j) row[j] *= reciprocal;
    for (int64_t i = 0; i < n; ++i) {
      if (i == k) continue;
      V* __restrict other = a + i * n;
      const V f = other[k];
      other[k] = V{};
      for (int64_t j = 0; j < n; ++j) other[j] -= f * row[j];
    }
    row[k] = -less_one * reciprocal;
  }
}

// Up to kLanes<T> matrices; work: 2 n n + kLanes<T> vectors.
template <class T>
void cayley_in_lanes(const T* s, T* p, int64_t count, int64_t n, Vec<T>* work) {
  constexpr int L = kLanes<T>, D = kLanes<double>;
  const int64_t each = n * n;
  Vec<double>* a = reinterpret_cast<Vec<double>*>(work + each + L);
  to_lanes(s, each, count, each, work);
  for (int first = 0; first < L; first += D) {  // of the lanes, as doubles
    for (int64_t k = 0; k < each; ++k) {
      math::Vector<T, D> part;
      std::memcpy(&part, reinterpret_cast<const T*>(work + k) + first, sizeof part);
      a[k] = __builtin_convertvector(part, Vec<double>);
    }
    invert_lanes(a, n);
    for (int64_t k = 0; k < each; ++k) {
      const Vec<double> twice = 2 * a[k];
      const math::Vector<T, D> part =
          __builtin_convertvector(k % (n + 1) == 0 ? twice + 1.0 : twice, math::Vector<T, D>);
      std::memcpy(reinterpret_cast<T*>(work + k) + first, &part, sizeof part);
    }
  }
  from_lanes(work, p, each, count, each);
}

// out = A^T B, or A B.
template <bool transposed, class V>
LIEROPE_HD void lane_product(const V* a, const V* b, V* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      V sum{};
      for (int64_t k = 0; k < n; ++k)
        sum = (transposed ? a[k * n + i] : a[i * n + k]) * b[k * n + j] + sum;
      out[i * n + j] = sum;
    }
  }
}

// 2 Sbar above the diagonal, as in cayley.cpp; work: (4, n * n + lanes) vectors.
template <class T>
void cayley_backward_in_lanes(const T* p, const T* grad, T* out, int64_t count, int64_t n,
                              Vec<T>* work) {
  const int64_t each = n * n, size = each + kLanes<T>;
  Vec<T>*q = work, *g = work + size, *first = work + 2 * size, *both = work + 3 * size;
  to_lanes(p, each, count, each, q);
  to_lanes(grad, each, count, each, g);
  for (int64_t i = 0; i < n; ++i) q[i * (n + 1)] += T(1);
  lane_product<true>(g, q, first, n);
  lane_product<false>(q, first, both, n);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < n; ++j)
      g[i * n + j] = j > i ? (both[i * n + j] - both[j * n + i]) * T(0.5) : Vec<T>{};
  from_lanes(g, out, each, count, each);
}

}  // namespace lierope::cpu::LIEROPE_ISA
