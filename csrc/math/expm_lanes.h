// exp(A) of small skew matrices and its adjoint, one matrix a lane: polynomial of degree 2K + 1,
// scaling, squaring.
#pragma once
#include "closed_forms.h"
#include "coefficients.h"
#include "skew_products.h"

namespace lierope::math {
inline namespace LIEROPE_ISA {

// 2^k for lanes of small integers.
template <class S>
LIEROPE_HD S power_of_two(const Bits<S>& k) {
  constexpr int mantissa = sizeof(Scalar<S>) == 4 ? 23 : 52,
                bias = sizeof(Scalar<S>) == 4 ? 127 : 1023;
  return from_bits<S>((k + bias) << mantissa);
}
// The least integer k with x <= 2^k, for positive normal x; past the largest exponent for NaN.
template <class S>
LIEROPE_HD Bits<S> ceil_log2(const S& x) {
  constexpr int mantissa = sizeof(Scalar<S>) == 4 ? 23 : 52,
                bias = sizeof(Scalar<S>) == 4 ? 127 : 1023;
  return ((to_bits(x) - 1) >> mantissa) + (1 - bias);  // to add the mantissa overflows for NaN
}

// What a caller wants done between products: nothing. Others ask for memory that comes next, some
// at a time; asked for at once it would wait for itself.
struct Nothing {
  LIEROPE_HD void operator()() const {}
};

// How often each lane's matrix is halved, and 0 or NaN to add to its result.
template <class S>
struct Scaling {
  Bits<S> halvings;
  S poison;

  LIEROPE_HD MaskOf<S> more_than(int steps) const { return halvings > Bits<Scalar<S>>(steps); }
};

// The least s with |A| <= 2^s theta by the bound |A|_2^4 <= |A^2|_F^2 / 2 (eigenvalues come in
// pairs +-i t), b = A^2. A bound that is not finite, or needs more halvings than rounding leaves
// digits for, gives NaN and no halvings.
template <int N, class S>
LIEROPE_HD Scaling<S> scaling_of(const S* b, Scalar<S> theta) {
  using T = Scalar<S>;
  S off = S{}, diagonal = S{};
  LIEROPE_UNROLL
  for (int i = 0; i < N; ++i) {
    LIEROPE_UNROLL
    for (int j = 0; j <= i; ++j) {
      const S x = b[Symmetric<N>::at(i, j)];
      if (i == j)
        diagonal += x * x;
      else
        off += x * x;
    }
  }
  const S fourth = (T(0.5) * diagonal + off) * (T(1) / (theta * theta * theta * theta));
  static_assert(kLargestScaling == 40);
  constexpr T largest = sizeof(T) == 4 ? T(0x1p127f) : T(0x1p160);  // 2^(4 * 40) where it fits
  const MaskOf<S> sound = fourth <= constant<S>(largest);
  const Bits<S> s = (ceil_log2(S(sound ? fourth : constant<S>(1))) + 3) >> 2;
  Scaling<S> scaling;
  scaling.halvings = s > 0 ? s : Bits<S>{};
  scaling.poison = sound ? S{} : S{} + T(__builtin_nan(""));
  return scaling;
}

// sum terms[j] B^j, j from 0 or from 1, from the powers B .. B^(K/2), as low + B^(K/2) high.
template <int N, int K, int first, class S>
LIEROPE_NOINLINE void even_polynomial(const Scalar<S>* terms, const S (*powers)[kSymmetric<N>],
                                      S* out) {
  using P = Symmetric<N>;
  constexpr int half = K / 2;
  S high[kSymmetric<N>];
  LIEROPE_UNROLL
  for (int i = 0; i < N; ++i) {
    LIEROPE_UNROLL
    for (int j = 0; j <= i; ++j) {
      const int e = P::at(i, j);
      S sum = terms[K] * powers[half - 1][e];
      LIEROPE_UNROLL
      for (int k = half - 1; k > 0; --k) sum += terms[half + k] * powers[k - 1][e];
      high[e] = i == j ? S(sum + terms[half]) : sum;
    }
  }
  for_tiles<P, N, S>([](int, int) LIEROPE_INLINED { return S{}; },
                     [&](Tile<S>& t, int i0, int j0) LIEROPE_INLINED {
                       add_product<P, P, P, N, 1>(t, powers[half - 1], static_cast<const S*>(high),
                                                  i0, j0);
                     },
                     [&](int i, int j, const S& product) LIEROPE_INLINED {
                       const int e = P::at(i, j);
                       S sum = product;
                       LIEROPE_UNROLL
                       for (int k = half - 1; k > 0; --k) sum += terms[k] * powers[k - 1][e];
                       out[e] = first == 0 && i == j ? S(sum + terms[0]) : sum;
                     });
}

// r = exp(X), less I unless `identity`; X = A / 2^s, s by lane so that the bound of |X| is at most
// theta.
template <int N, int K, bool identity, class S, class Between>
LIEROPE_HD Scaling<S> scaled_exponential(const S* a, Scalar<S> theta, S* x, S* r,
                                         const Between& between) {
  using P = Symmetric<N>;
  using Terms = SkewExp<Scalar<S>, K>;
  S powers[K / 2][kSymmetric<N>], even[kSymmetric<N>], odd[kSymmetric<N>], k[kTriangle<N>];
  square_skew<N>(a, powers[0]);
  between();
  const Scaling<S> scaling = scaling_of<N>(static_cast<const S*>(powers[0]), theta);
  const S scale = power_of_two<S>(-scaling.halvings), scale2 = scale * scale;
  LIEROPE_UNROLL
  for (int e = 0; e < kTriangle<N>; ++e) x[e] = scale * a[e];
  LIEROPE_UNROLL
  for (int e = 0; e < kSymmetric<N>; ++e) powers[0][e] *= scale2;
  LIEROPE_UNROLL
  for (int p = 2; p <= K / 2; ++p) {
    multiply_symmetric<N, S>(powers[p / 2 - 1], powers[p - p / 2 - 1], powers[p - 1]);
    between();
  }
  even_polynomial<N, K, identity ? 0 : 1, S>(Terms::c, powers, even);
  between();
  even_polynomial<N, K, 0, S>(Terms::s, powers, odd);
  between();
  multiply_skew_symmetric<N, S>(x, odd, k);
  between();
  LIEROPE_UNROLL
  for (int i = 0; i < N; ++i) {
    LIEROPE_UNROLL
    for (int j = 0; j < i; ++j) {
      const S c = even[P::at(i, j)] + scaling.poison;
      symmetric_plus_skew<N>(r, j, i, c, k[Skew<N>::at(j, i)]);
    }
    r[i * N + i] = even[P::at(i, i)] + scaling.poison;
  }
  return scaling;
}

// The rotation of y is the square of that of x in the lanes that are active, the same in the
// others.
template <int N, bool identity, class S>
LIEROPE_HD void square_active(const S* x, const MaskOf<S>& active, S* y) {
  if constexpr (identity)
    square_full<N>(x, y);
  else
    square_rotation<N>(x, y);
  if (any(!active)) {
    LIEROPE_UNROLL
    for (int e = 0; e < N * N; ++e) y[e] = active ? y[e] : x[e];
  }
}

// r = exp(A), less I unless `identity`, for sides above 4.
template <int N, bool identity, class S, class Between>
LIEROPE_HD void squared_exponential(const S* a, S* r, const Between& between) {
  constexpr int K = kForwardTerms<Scalar<S>>;
  S x[kTriangle<N>], other[N * N];
  S* buffers[2] = {r, other};
  const Scaling<S> scaling =
      scaled_exponential<N, K, identity>(a, SkewExp<Scalar<S>, K>::theta, x, r, between);
  int steps = 0;
  for (; any(scaling.more_than(steps)); ++steps) {
    square_active<N, identity>(buffers[steps % 2], scaling.more_than(steps),
                               buffers[1 - steps % 2]);
    between();
  }
  if (steps % 2) {
    LIEROPE_UNROLL
    for (int e = 0; e < N * N; ++e) r[e] = other[e];
  }
}

// r = exp(A).
template <int N, class S, class Between = Nothing>
LIEROPE_HD void expm(const S* a, S* r, const Between& between = {}) {
  if constexpr (N == 1)
    r[0] = constant<S>(1);
  else if constexpr (N == 2)
    expm2(a, r);
  else if constexpr (N == 3)
    expm3(a, r);
  else if constexpr (N == 4)
    expm4(a, r);
  else
    squared_exponential<N, true>(a, r, between);
}

// exp(A) as held (kLessIdentity): no worse where A is small, as are the powers of what is held.
template <int N, class S, class Between = Nothing>
LIEROPE_HD void held_expm(const S* a, S* r, const Between& between = {}) {
  if constexpr (kLessIdentity<N>)
    squared_exponential<N, false>(a, r, between);
  else
    expm<N>(a, r);
}

// w = R^T G - G^T R for R as held: twice W0 for the gradient G of R.
template <int N, class S>
LIEROPE_HD void pull_back(const S* r, const S* g, S* w) {
  if constexpr (N == 2)
    pull_back2(r, g, w);
  else
    twice_skew_of_product<N, kLessIdentity<N>>(r, g, w);
}

// exp(A) and then, any number of times, Abar = psi(ad_A) W. The rotations of X, 2X, .. A are kept
// for the doublings psi(2z) = psi(z) (1 + e^z) / 2, that is W <- (W + R_j W R_j^T) / 2 for j = 0 to
// s - 1, before psi(ad_X) by its series. Large: one per thread, not on the stack.
template <int N, class S>
class ExpmAdjoint {
  static constexpr bool closed = !kLessIdentity<N>;
  static constexpr int K = kAdjointTerms<Scalar<S>>;
  using Terms = SkewExp<Scalar<S>, K>;

 public:
  template <class Between = Nothing>
  LIEROPE_HD void start(const S* a, const Between& between = {}) {
    if constexpr (closed) {
      LIEROPE_UNROLL
      for (int e = 0; e < kTriangle<N>; ++e) x_[e] = a[e];
      expm<N>(a, chain_[0]);
      steps_ = 0;
    } else {
      scaling_ = scaled_exponential<N, K, false>(a, Terms::theta / 2, x_, chain_[0], between);
      for (steps_ = 0; any(scaling_.more_than(steps_)); ++steps_) {
        square_active<N, false>(chain_[steps_], scaling_.more_than(steps_), chain_[steps_ + 1]);
        between();
      }
    }
  }

  // R = exp(A) as held.
  LIEROPE_HD const S* rotation() const { return chain_[steps_]; }

  // w is overwritten.
  template <class Between = Nothing>
  LIEROPE_HD void adjoint(S* w, S* out, const Between& between = {}) const {
    if constexpr (N == 2) {
      expm2_adjoint(x_, w, out);
    } else if constexpr (N == 3) {
      expm3_adjoint(x_, w, out);
    } else if constexpr (N == 4) {
      expm4_adjoint(x_, w, out);
    } else if constexpr (N > 4) {
      S y[N * N];
      for (int j = 0; j < steps_; ++j) {
        average_conjugate<N>(chain_[j], scaling_.more_than(j), w, y);
        between();
      }
      series(w, out, between);
    }
  }

 private:
  // sum of (ad_X)^k w times c[1], s[1], c[2], s[2] .. by Horner.
  template <class Between>
  LIEROPE_HD void series(const S* w, S* out, const Between& between) const {
    S z[kTriangle<N>];
    LIEROPE_UNROLL
    for (int e = 0; e < kTriangle<N>; ++e) z[e] = Terms::s[K] * w[e];
    for (int k = K; k > 0; --k) {
      add_commutator<N, S>(x_, z, w, Terms::c[k], out);
      between();
      add_commutator<N, S>(x_, out, w, Terms::s[k - 1], z);
      between();
    }
    LIEROPE_UNROLL
    for (int e = 0; e < kTriangle<N>; ++e) out[e] = z[e] + scaling_.poison;
  }

  S x_[kTriangle<N> + (N == 1)];
  Scaling<S> scaling_;
  int steps_;
  S chain_[closed ? 1 : kLargestScaling + 1][N * N];  // closed: exp(A); else exp(2^j X) - I
};

}  // namespace LIEROPE_ISA
}  // namespace lierope::math
