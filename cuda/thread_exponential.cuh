// exp(A) of a skew matrix of side N <= 8 that one thread holds, and its adjoint.
#pragma once
#include "../csrc/math/expm_lanes.h"
#include "coefficients.cuh"
#include "thread_products.cuh"

namespace lierope::cuda {

// Triangles are packed by rows: a01 a02 .. a12 ..; rotations are full, by rows.

template <class T, int N>
inline constexpr bool kClosedForm = N <= 4;
template <int N>
inline constexpr int kTriangle = N * (N - 1) / 2;
template <int N>
inline constexpr int kTriangleRoom = N == 1 ? 1 : kTriangle<N>;  // no array is empty

// How often a matrix is halved, by what factor that is, and 0 or NaN to add to its result.
template <class T>
struct HalvingsOf {
  int count;
  T factor, poison;
};

// The least s with |A| <= 2^s theta by the bound |A|_2^4 <= |A^2|_F^2 / 2, fourth = (bound /
// theta)^4. Integer arithmetic: every processor chooses the same. What is not finite, or needs more
// halvings than rounding leaves digits for, becomes NaN.
template <class T>
__device__ __forceinline__ HalvingsOf<T> halvings_of(T fourth) {
  static_assert(math::kLargestScaling == 40);
  const T largest = sizeof(T) == 4 ? T(0x1p127f) : T(0x1p160);  // 2^(4 * 40) where it fits
  const bool sound = fourth <= largest;
  const int s = sound ? (int(math::ceil_log2<T>(fourth)) + 3) >> 2 : 0;
  const int count = s > 0 ? s : 0;
  return {count, math::power_of_two<T>(-count), sound ? T(0) : T(__builtin_nan(""))};
}

template <class T, int N>
__device__ __forceinline__ T half_square(const SymmetricTriangle<T, N>& b) {
  T off = 0, diagonal = 0;
  LIEROPE_EACH(i, 0, N) {
    diagonal += b.at(i, i) * b.at(i, i);
    LIEROPE_EACH(j, 0, i) off += b.at(i, j) * b.at(i, j);
  }
  return T(0.5) * diagonal + off;
}

// sum terms[j] B^j, j from 0 or from 1, from the powers B .. B^(K/2).
template <int K, bool with_identity, class T, int N>
__device__ __forceinline__ SymmetricTriangle<T, N> even_polynomial(
    const T (&terms)[K + 1], const SymmetricTriangle<T, N> (&powers)[K / 2]) {
  constexpr int half = K / 2;
  SymmetricTriangle<T, N> high, low;
  LIEROPE_EACH(i, 0, N) LIEROPE_EACH(j, 0, i + 1) {
    const int e = high.index(i, j);
    T top = terms[K] * powers[half - 1].v[e], rest = 0;
    LIEROPE_EACH(k, 1, half) {
      top += terms[half + k] * powers[k - 1].v[e];
      rest += terms[k] * powers[k - 1].v[e];
    }
    high.v[e] = i == j ? top + terms[half] : top;
    low.v[e] = i == j && with_identity ? rest + terms[0] : rest;
  }
  return add_product(powers[half - 1], high, low);
}

// a becomes X = A / 2^s with |X| <= theta; also the powers X^2 .. X^K.
template <int K, class T, int N>
__device__ __forceinline__ HalvingsOf<T> scale_down(T theta, SkewTriangle<T, N>& a,
                                                    SymmetricTriangle<T, N>& b) {
  b = square(a);
  const HalvingsOf<T> halvings =
      halvings_of(half_square(b) * (T(1) / (theta * theta * theta * theta)));
  const T factor = halvings.factor, factor2 = factor * factor;
  LIEROPE_EACH(e, 0, a.size) a.v[e] *= factor;
  LIEROPE_EACH(e, 0, b.size) b.v[e] *= factor2;
  return halvings;
}

// exp(X), less I unless `identity`.
template <int K, bool identity, class T, int N>
__device__ __forceinline__ SquareMatrix<T, N> polynomial(const SkewTriangle<T, N>& x,
                                                         const SymmetricTriangle<T, N>& b,
                                                         T poison) {
  constexpr SkewTerms<T, K> terms = skew_terms<T, K>();
  SymmetricTriangle<T, N> powers[K / 2];
  powers[0] = b;
  LIEROPE_EACH(p, 2, K / 2 + 1) {
    SymmetricTriangle<T, N> zero;
    LIEROPE_EACH(e, 0, b.size) zero.v[e] = 0;
    powers[p - 1] = add_product(powers[p / 2 - 1], powers[p - p / 2 - 1], zero);
  }
  const SkewTriangle<T, N> k = product(x, even_polynomial<K, true>(terms.s, powers));
  const SymmetricTriangle<T, N> c = even_polynomial<K, identity>(terms.c, powers);
  SquareMatrix<T, N> r;
  LIEROPE_EACH(i, 0, N) {
    r.v[i][i] = c.at(i, i) + poison;
    LIEROPE_EACH(j, i + 1, N) {
      const T even = c.at(i, j) + poison, odd = k.v[k.index(i, j)];
      r.v[i][j] = even + odd;
      r.v[j][i] = even - odd;
    }
  }
  return r;
}

// exp(A), less I unless `identity`. Lanes that need fewer squarings wait for the others.
template <bool identity, class T, int N>
__device__ __forceinline__ SquareMatrix<T, N> exponential(SkewTriangle<T, N> a) {
  constexpr int K = math::kForwardTerms<T>;
  SymmetricTriangle<T, N> b;
  const HalvingsOf<T> halvings = scale_down<K>(T(math::SkewExp<T, K>::theta), a, b);
  SquareMatrix<T, N> r = polynomial<K, identity>(a, b, halvings.poison);
  LIEROPE_ROLLED
  for (int j = 0; j < halvings.count; ++j) square<!identity>(r);
  return r;
}

// r = exp(A).
template <int N, class T>
__device__ __forceinline__ void thread_exponential(const T* a, T* r) {
  if constexpr (N <= 4) {
    math::expm<N>(a, r);
  } else {
    SkewTriangle<T, N> triangle;
    LIEROPE_EACH(e, 0, kTriangle<N>) triangle.v[e] = a[e];
    const SquareMatrix<T, N> out = exponential<true>(triangle);
    LIEROPE_EACH(i, 0, N) LIEROPE_EACH(j, 0, N) r[i * N + j] = out.v[i][j];
  }
}

// w = R^T G - G^T R: twice W0 for the gradient G of R; g(i, j) reads its entries.
template <int N, class T, class Read>
__device__ __forceinline__ void thread_pull_back(const T* a, Read g, T* w) {
  if constexpr (N == 2) {
    T r[4];
    math::expm2(a, r);
    const T full[4] = {g(0, 0), g(0, 1), g(1, 0), g(1, 1)};
    math::pull_back2(r, full, w);
  } else if constexpr (N > 2) {
    SquareMatrix<T, N> r;
    if constexpr (kClosedForm<T, N>) {
      math::expm<N>(a, &r.v[0][0]);
    } else {
      SkewTriangle<T, N> triangle;
      LIEROPE_EACH(e, 0, kTriangle<N>) triangle.v[e] = a[e];
      r = exponential<false>(triangle);
    }
    LIEROPE_EACH(e, 0, kTriangle<N>) w[e] = 0;
    LIEROPE_EACH(k, 0, N) {
      T row[N];
      LIEROPE_EACH(j, 0, N) row[j] = g(k, j);
      LIEROPE_EACH(i, 0, N) LIEROPE_EACH(j, i + 1, N) {
        T& sum = w[SkewTriangle<T, N>::index(i, j)];
        sum += r.v[k][i] * row[j];
        sum -= row[i] * r.v[k][j];
      }
    }
    if constexpr (!kClosedForm<T, N>) LIEROPE_EACH(i, 0, N)
    LIEROPE_EACH(j, i + 1, N) w[SkewTriangle<T, N>::index(i, j)] += g(i, j) - g(j, i);
  }
}

// w = psi(ad_A) w, psi(z) = (exp(z) - 1) / z: doublings, then the series by commutators.
template <int N, class T>
__device__ __forceinline__ void thread_adjoint(const T* a, T* w) {
  if constexpr (N == 2) {
    math::expm2_adjoint(a, static_cast<const T*>(w), w);
  } else if constexpr (N == 3 || N == 4) {
    T out[kTriangle<N>];
    if constexpr (N == 3)
      math::expm3_adjoint(a, static_cast<const T*>(w), out);
    else
      math::expm4_adjoint(a, static_cast<const T*>(w), out);
    LIEROPE_EACH(e, 0, kTriangle<N>) w[e] = out[e];
  } else if constexpr (N > 4) {
    constexpr int K = math::kAdjointTerms<T>;
    constexpr SkewTerms<T, K> terms = skew_terms<T, K>();
    SkewTriangle<T, N> x, v, z;
    LIEROPE_EACH(e, 0, kTriangle<N>) {
      x.v[e] = a[e];
      v.v[e] = w[e];
    }
    SymmetricTriangle<T, N> b;
    const HalvingsOf<T> halvings = scale_down<K>(T(math::SkewExp<T, K>::theta) / 2, x, b);
    if (halvings.count > 0) {
      SquareMatrix<T, N> r = polynomial<K, false>(x, b, T(0));
      LIEROPE_ROLLED
      for (int j = 0;;) {
        average_conjugate(r, v);
        if (++j == halvings.count) break;
        square<true>(r);
      }
    }
    LIEROPE_EACH(e, 0, kTriangle<N>) z.v[e] = terms.s[K] * v.v[e];
    LIEROPE_ROLLED
    for (int k = K; k > 0; --k) {
      z = add_commutator(x, z, terms.c[k], v);
      z = add_commutator(x, z, terms.s[k - 1], v);
    }
    LIEROPE_EACH(e, 0, kTriangle<N>) w[e] = z.v[e] + halvings.poison;
  }
}

}  // namespace lierope::cuda
