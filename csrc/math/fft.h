// Complex FFTs of lengths 2^i 3^j 5^k: forward into a digit-reversed order of modes, backward from
// it.
#pragma once
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "element.h"

namespace lierope::math {
inline namespace LIEROPE_ISA {

template <class S>
struct Complex {
  S re, im;
};
template <class S>
LIEROPE_HD Complex<S> operator+(const Complex<S>& a, const Complex<S>& b) {
  return {a.re + b.re, a.im + b.im};
}
template <class S>
LIEROPE_HD Complex<S> operator-(const Complex<S>& a, const Complex<S>& b) {
  return {a.re - b.re, a.im - b.im};
}
template <class S>
LIEROPE_HD Complex<S> conjugate(const Complex<S>& a) {
  return {a.re, -a.im};
}
// (re + i im) a, or the conjugate of re + i im times a.
template <bool conjugated, class S, class T>
LIEROPE_HD Complex<S> times(const Complex<S>& a, const T& re, const T& im) {
  if constexpr (conjugated) return {a.re * re + a.im * im, a.im * re - a.re * im};
  return {a.re * re - a.im * im, a.im * re + a.re * im};
}
// -i a, or with `inverse` i a.
template <bool inverse, class S>
LIEROPE_HD Complex<S> quarter_turn(const Complex<S>& a) {
  if constexpr (inverse) return {-a.im, a.re};
  return {a.im, -a.re};
}

// y_k = sum_q e^{-2 pi i k q / R} z_q in place (e^{+...} with `inverse`).
template <int R, bool inverse, class S>
LIEROPE_HD void butterfly(Complex<S>* z) {
  using T = Scalar<S>;
  if constexpr (R == 2) {
    const Complex<S> a = z[0];
    z[0] = a + z[1];
    z[1] = a - z[1];
  } else if constexpr (R == 3) {
    constexpr T s = T(0.866025403784438646763723170752936183L);
    const Complex<S> sum = z[1] + z[2], d = quarter_turn<inverse>(z[1] - z[2]);
    const Complex<S> middle{z[0].re - sum.re * T(0.5), z[0].im - sum.im * T(0.5)};
    const Complex<S> turned{d.re * s, d.im * s};
    z[0] = z[0] + sum;
    z[1] = middle + turned;
    z[2] = middle - turned;
  } else if constexpr (R == 4) {
    const Complex<S> a = z[0] + z[2], b = z[0] - z[2], c = z[1] + z[3];
    const Complex<S> d = quarter_turn<inverse>(z[1] - z[3]);
    z[0] = a + c;
    z[1] = b + d;
    z[2] = a - c;
    z[3] = b - d;
  } else if constexpr (R == 5) {
    constexpr T c1 = T(0.309016994374947424102293417182819059L);
    constexpr T c2 = T(-0.809016994374947424102293417182819059L);
    constexpr T s1 = T(0.951056516295153572116439333379382143L);
    constexpr T s2 = T(0.587785252292473129168705954639072769L);
    const Complex<S> p = z[1] + z[4], q = z[2] + z[3];
    const Complex<S> d = quarter_turn<inverse>(z[1] - z[4]), e = quarter_turn<inverse>(z[2] - z[3]);
    const Complex<S> a{z[0].re + p.re * c1 + q.re * c2, z[0].im + p.im * c1 + q.im * c2};
    const Complex<S> b{z[0].re + p.re * c2 + q.re * c1, z[0].im + p.im * c2 + q.im * c1};
    const Complex<S> f{d.re * s1 + e.re * s2, d.im * s1 + e.im * s2};
    const Complex<S> g{d.re * s2 - e.re * s1, d.im * s2 - e.im * s1};
    z[0] = z[0] + p + q;
    z[1] = a + f;
    z[2] = b + g;
    z[3] = b - g;
    z[4] = a - f;
  } else {
    static_assert(R == 8);
    constexpr T s = T(0.707106781186547524400844362104849039L);
    Complex<S> even[4] = {z[0], z[2], z[4], z[6]}, odd[4] = {z[1], z[3], z[5], z[7]};
    butterfly<4, inverse>(even);
    butterfly<4, inverse>(odd);
    const Complex<S> t1 = quarter_turn<inverse>(odd[1]), t3 = quarter_turn<inverse>(odd[3]);
    odd[1] = {(odd[1].re + t1.re) * s, (odd[1].im + t1.im) * s};
    odd[2] = quarter_turn<inverse>(odd[2]);
    odd[3] = {(t3.re - odd[3].re) * s, (t3.im - odd[3].im) * s};
    LIEROPE_UNROLL
    for (int k = 0; k < 4; ++k) {
      z[k] = even[k] + odd[k];
      z[k + 4] = even[k] - odd[k];
    }
  }
}

// What transforms of one length share. Stage s splits blocks of `length` into radix[s] parts.
template <class T>
struct FftPlan {
  static constexpr int kMostStages = 13;
  int64_t n;
  int stages;
  int radix[kMostStages];
  const T* twiddles[kMostStages];  // e^{-2 pi i j q / length} for j, then q = 1 .. radix - 1
  const int32_t* position;         // where mode m stands after the forward transform
};

// Decimation in frequency forward, in time backward: neither needs its modes sorted.
template <int R, bool inverse, class S, class T>
__attribute__((noinline)) inline void fft_stage(S* z, int64_t n, int64_t length,
                                                const T* twiddles) {
  const int64_t part = length / R;
  for (int64_t base = 0; base < n; base += length) {
    for (int64_t j = 0; j < part; ++j) {
      Complex<S> v[R];
      S* at = z + 2 * (base + j);
      const T* w = twiddles + 2 * (R - 1) * j;
      LIEROPE_UNROLL
      for (int q = 0; q < R; ++q) {
        v[q] = {at[2 * q * part], at[2 * q * part + 1]};
        if (inverse && q > 0) v[q] = times<true>(v[q], w[2 * q - 2], w[2 * q - 1]);
      }
      butterfly<R, inverse>(v);
      LIEROPE_UNROLL
      for (int q = 0; q < R; ++q) {
        if (!inverse && q > 0) v[q] = times<false>(v[q], w[2 * q - 2], w[2 * q - 1]);
        at[2 * q * part] = v[q].re;
        at[2 * q * part + 1] = v[q].im;
      }
    }
  }
}

// The stage of the shortest blocks has no twiddles.
template <int R, bool inverse, class S>
__attribute__((noinline)) inline void fft_last_stage(S* z, int64_t n) {
  for (int64_t base = 0; base < n; base += R) {
    Complex<S> v[R];
    LIEROPE_UNROLL
    for (int q = 0; q < R; ++q) v[q] = {z[2 * (base + q)], z[2 * (base + q) + 1]};
    butterfly<R, inverse>(v);
    LIEROPE_UNROLL
    for (int q = 0; q < R; ++q) {
      z[2 * (base + q)] = v[q].re;
      z[2 * (base + q) + 1] = v[q].im;
    }
  }
}

template <int R, bool inverse, class S, class T>
LIEROPE_HD void fft_any_stage(S* z, int64_t n, int64_t length, const T* twiddles) {
  length == R ? fft_last_stage<R, inverse>(z, n) : fft_stage<R, inverse>(z, n, length, twiddles);
}

template <bool inverse, class S, class T>
inline void fft_one_stage(const FftPlan<T>& plan, int stage, int64_t length, S* z) {
  const T* twiddles = plan.twiddles[stage];
  switch (plan.radix[stage]) {
    case 2: return fft_any_stage<2, inverse>(z, plan.n, length, twiddles);
    case 3: return fft_any_stage<3, inverse>(z, plan.n, length, twiddles);
    case 4: return fft_any_stage<4, inverse>(z, plan.n, length, twiddles);
    case 5: return fft_any_stage<5, inverse>(z, plan.n, length, twiddles);
    default: return fft_any_stage<8, inverse>(z, plan.n, length, twiddles);
  }
}

// z: (re, im) of each of the n numbers, in place.
template <class S, class T>
inline void fft_forward(const FftPlan<T>& plan, S* z) {
  int64_t length = plan.n;
  for (int s = 0; s < plan.stages; length /= plan.radix[s++])
    fft_one_stage<false>(plan, s, length, z);
}
// n times the inverse.
template <class S, class T>
inline void fft_backward(const FftPlan<T>& plan, S* z) {
  int64_t length = 1;
  for (int s = plan.stages - 1; s >= 0; --s)
    fft_one_stage<true>(plan, s, length *= plan.radix[s], z);
}

// e^{-2 pi i k / n}, computed in more digits than T has.
template <class T>
inline void unit_root(int64_t k, int64_t n, T* re, T* im) {
  using Wide = std::conditional_t<sizeof(T) == 4, double, long double>;
  const Wide angle = Wide(6.283185307179586476925286766559005768L) * Wide(k % n) / Wide(n);
  *re = T(std::cos(angle));
  *im = T(-std::sin(angle));
}

// Radices, largest last: the last stage is the one without twiddles.
template <class T>
inline void choose_radices(FftPlan<T>& plan) {
  int64_t rest = plan.n;
  int twos = 0;
  for (; rest % 2 == 0; rest /= 2) ++twos;
  plan.stages = 0;
  for (int prime : {3, 5})
    for (; rest % prime == 0; rest /= prime) plan.radix[plan.stages++] = prime;
  if (twos == 1) plan.radix[plan.stages++] = 2;
  const int fours = twos == 1 ? 0 : (3 - twos % 3) % 3;
  for (int i = 0; i < fours; ++i) plan.radix[plan.stages++] = 4;
  for (int i = 0; i < (twos - 2 * fours) / 3; ++i) plan.radix[plan.stages++] = 8;
}

template <class T>
inline int64_t twiddle_count(const FftPlan<T>& plan) {  // of T; at most 2 n
  int64_t count = 0, length = plan.n;
  for (int s = 0; s < plan.stages; length /= plan.radix[s++])
    count += 2 * (plan.radix[s] - 1) * (length / plan.radix[s]);
  return count;
}

// Fills tables of twiddle_count(plan) and n elements for a plan whose radices are chosen.
template <class T>
inline void fill_tables(FftPlan<T>& plan, T* twiddles, int32_t* position) {
  int64_t length = plan.n;
  for (int s = 0; s < plan.stages; ++s) {
    const int radix = plan.radix[s];
    plan.twiddles[s] = twiddles;
    for (int64_t j = 0; j < length / radix; ++j)
      for (int q = 1; q < radix; ++q, twiddles += 2)
        unit_root(j * q, length, twiddles, twiddles + 1);
    length /= radix;
  }
  for (int64_t mode = 0; mode < plan.n; ++mode) {
    int64_t rest = mode, at = 0, part = plan.n;
    for (int s = 0; s < plan.stages; rest /= plan.radix[s++]) {
      part /= plan.radix[s];
      at += rest % plan.radix[s] * part;
    }
    position[mode] = int32_t(at);
  }
  plan.position = position;
}

}  // namespace LIEROPE_ISA
}  // namespace lierope::math
