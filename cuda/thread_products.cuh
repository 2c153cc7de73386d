// Products of small matrices that one thread holds in registers: only triangles of symmetric and
// skew matrices are stored and computed.
#pragma once
#include "portable.cuh"

namespace lierope::cuda {

#define LIEROPE_EACH(i, first, end) \
  LIEROPE_UNROLL                    \
  for (int i = (first); i < (end); ++i)

template <class T, int N>
struct SkewTriangle {  // the strict upper triangle by rows
  static constexpr int size = N * (N - 1) / 2;
  T v[size];
  static __host__ __device__ constexpr int index(int i, int j) {  // i < j
    return i * (2 * N - i - 1) / 2 + j - i - 1;
  }
  __device__ __forceinline__ T at(int i, int j) const {  // i != j
    return i < j ? v[index(i, j)] : -v[index(j, i)];
  }
};

template <class T, int N>
struct SymmetricTriangle {
  static constexpr int size = N * (N + 1) / 2;
  T v[size];
  static __host__ __device__ constexpr int index(int i, int j) {
    return i >= j ? i * (i + 1) / 2 + j : j * (j + 1) / 2 + i;
  }
  __device__ __forceinline__ T at(int i, int j) const { return v[index(i, j)]; }
};

template <class T, int N>
struct SquareMatrix {
  T v[N][N];
};

// Every entry adds its terms in the order of k, wherever it is: so exp(-A) = exp(A)^T to the bit.

template <class T, int N>
__device__ __forceinline__ SymmetricTriangle<T, N> square(const SkewTriangle<T, N>& a) {
  SymmetricTriangle<T, N> out;
  LIEROPE_EACH(i, 0, N) LIEROPE_EACH(j, 0, i + 1) {
    T sum = 0;
    LIEROPE_EACH(k, 0, N) if (k != i && k != j) sum += a.at(i, k) * a.at(k, j);
    out.v[out.index(i, j)] = sum;
  }
  return out;
}

// start + X Y of matrices that commute, so that the product is symmetric.
template <class T, int N>
__device__ __forceinline__ SymmetricTriangle<T, N> add_product(const SymmetricTriangle<T, N>& x,
                                                               const SymmetricTriangle<T, N>& y,
                                                               SymmetricTriangle<T, N> start) {
  LIEROPE_EACH(i, 0, N)
  LIEROPE_EACH(k, 0, N)
  LIEROPE_EACH(j, 0, i + 1) start.v[start.index(i, j)] += x.at(i, k) * y.at(k, j);
  return start;
}

// A S, skew for S a polynomial in A^2.
template <class T, int N>
__device__ __forceinline__ SkewTriangle<T, N> product(const SkewTriangle<T, N>& a,
                                                      const SymmetricTriangle<T, N>& s) {
  SkewTriangle<T, N> out;
  LIEROPE_EACH(i, 0, N) LIEROPE_EACH(j, i + 1, N) {
    T sum = 0;
    LIEROPE_EACH(k, 0, N) if (k != i) sum += a.at(i, k) * s.at(k, j);
    out.v[out.index(i, j)] = sum;
  }
  return out;
}

// R^2, or with `beside_identity` (I + R)^2 - I: there terms of first order are added last, so that
// while R is small, so is what rounding does to it.
template <bool beside_identity, class T, int N>
__device__ __forceinline__ void square(SquareMatrix<T, N>& r) {
  SquareMatrix<T, N> out;
  LIEROPE_EACH(i, 0, N) {
    LIEROPE_EACH(j, 0, N) out.v[i][j] = r.v[i][0] * r.v[0][j];
    LIEROPE_EACH(k, 1, N) LIEROPE_EACH(j, 0, N) out.v[i][j] += r.v[i][k] * r.v[k][j];
  }
  LIEROPE_EACH(i, 0, N) LIEROPE_EACH(j, 0, N) {
    if (beside_identity) out.v[i][j] += T(2) * r.v[i][j];
  }
  r = out;
}

// w = (w + R w R^T) / 2 = w + (Y - Y^T + Y E^T) / 2 with R = I + E, Y = E w.
template <class T, int N>
__device__ __forceinline__ void average_conjugate(const SquareMatrix<T, N>& e,
                                                  SkewTriangle<T, N>& w) {
  SkewTriangle<T, N> first, second;
  LIEROPE_EACH(t, 0, w.size) first.v[t] = second.v[t] = 0;
  LIEROPE_EACH(i, 0, N) {
    T y[N];  // row i
    LIEROPE_EACH(j, 0, N) {
      y[j] = 0;
      LIEROPE_EACH(k, 0, N) if (k != j) y[j] += e.v[i][k] * w.at(k, j);
    }
    LIEROPE_EACH(j, 0, i) first.v[w.index(j, i)] -= y[j];
    LIEROPE_EACH(j, i + 1, N) {
      first.v[w.index(i, j)] += y[j];
      LIEROPE_EACH(k, 0, N) second.v[w.index(i, j)] += y[k] * e.v[j][k];
    }
  }
  LIEROPE_EACH(t, 0, w.size) w.v[t] += T(0.5) * (first.v[t] + second.v[t]);
}

// q w + [x, z]. Two statements a term: one difference would be a product, an FMA and a sum.
template <class T, int N>
__device__ __forceinline__ SkewTriangle<T, N> add_commutator(const SkewTriangle<T, N>& x,
                                                             const SkewTriangle<T, N>& z, T q,
                                                             const SkewTriangle<T, N>& w) {
  SkewTriangle<T, N> out;
  LIEROPE_EACH(i, 0, N) LIEROPE_EACH(j, i + 1, N) {
    T sum = q * w.v[w.index(i, j)];
    LIEROPE_EACH(k, 0, N) if (k != i && k != j) {
      sum += x.at(i, k) * z.at(k, j);
      sum -= z.at(i, k) * x.at(k, j);
    }
    out.v[w.index(i, j)] = sum;
  }
  return out;
}

}  // namespace lierope::cuda
