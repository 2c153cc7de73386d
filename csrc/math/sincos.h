// Sine and cosine together, for numbers and for vectors of lanes.
#pragma once
#include <cmath>

#include "element.h"

namespace lierope::math {
inline namespace LIEROPE_ISA {

// x = n pi/2 + r with |r| <= pi/4 and n the nearest integer; `shifted` holds n mod 4 in the low
// bits of its significand. P1 has so few bits that n P1 is exact, and so is x - n P1.
template <class D>
struct QuarterTurns {
  D r, shifted;
};

// Adding it rounds to an integer, ties to even: odd functions stay odd.
inline constexpr double kShift = 0x1.8p52;
inline constexpr double kTwoOverPi = 0x1.45f306dc9c883p-1;

// For angles that were floats. |n| < 2^26; r errs by less than 2^-53.
inline constexpr double kLargestFloatAngle = 1e8;
template <class D>
LIEROPE_HD QuarterTurns<D> quarter_turns_of_float(const D& x) {
  constexpr double P1 = 0x1.921fb54p+0, P2 = 0x1.10b4611a62633p-30;
  const D shifted = x * kTwoOverPi + kShift;
  const D n = shifted - kShift;
  return {(x - n * P1) - n * P2, shifted};
}

// For doubles (Cody and Waite, three parts). |n| < 2^20; r errs by its last rounding and by less
// than 2^-101.
inline constexpr double kLargestDoubleAngle = 1e6;
template <class D>
LIEROPE_HD QuarterTurns<D> quarter_turns(const D& x) {
  constexpr double P1 = 0x1.921fb544p+0, P2 = 0x1.0b4611a6p-34, P3 = 0x1.3198a2e037073p-69;
  const D shifted = x * kTwoOverPi + kShift;
  const D n = shifted - kShift;
  const D first = x - n * P1, second = first - n * P2;
  const D lost = (first - second) - n * P2;    // what rounding took from `second`
  return {second - (n * P3 - lost), shifted};  // keeps the sign of x = -0
}

// sin r = r + r z p(z), cos r = 1 - z/2 + z^2 q(z), z = r^2: minimax on |r| <= pi/4, with relative
// errors 2^-28 and 2^-33 (float), 2^-58 and 2^-64 (double). Highest power first.
template <class T>
struct QuarterTurnTerms {
  static constexpr T sine[] = {-1.9514958040e-4f, 8.3321584133e-3f, -1.6666654573e-1f};
  static constexpr T cosine[] = {2.4432784981e-5f, -1.3887313062e-3f, 4.1666645619e-2f};
};
template <>
struct QuarterTurnTerms<double> {
  static constexpr double sine[] = {1.5896067673240338599e-10, -2.5050745040068189511e-8,
                                    2.7557313604535702145e-6,  -1.9841269829542613205e-4,
                                    8.3333333333220621514e-3,  -1.6666666666666630512e-1};
  static constexpr double cosine[] = {-1.135842358245260168e-11, 2.0875698709940324651e-9,
                                      -2.755731416398800671e-7,  2.4801587288800069581e-5,
                                      -1.3888888888872976004e-3, 4.1666666666666592471e-2};
};

template <class S, class T, int K>
LIEROPE_HD S horner(const T (&terms)[K], const S& z) {
  S sum = terms[0] * z + terms[1];
  LIEROPE_UNROLL
  for (int k = 2; k < K; ++k) sum = sum * z + terms[k];
  return sum;
}

// The sign of r is put back on r = -0, which the polynomial loses.
template <class S>
LIEROPE_HD void sincos_in_quadrant(const S& r, const Bits<S>& quadrant, S* sine, S* cosine) {
  using T = Scalar<S>;
  constexpr int sign_bit = int(8 * sizeof(T)) - 1;
  const S z = r * r;
  const S p = horner(QuarterTurnTerms<T>::sine, z), q = horner(QuarterTurnTerms<T>::cosine, z);
  const Bits<S> sign = Bits<S>{} + (Bits<T>(1) << sign_bit);
  const S s = from_bits<S>(to_bits(S(r * z * p + r)) | (to_bits(r) & sign));
  const S c = z * z * q + (T(1) - T(0.5) * z);
  const auto odd = (quadrant & 1) != 0;
  const S unsigned_sine = odd ? c : s, unsigned_cosine = odd ? s : c;
  *sine = from_bits<S>(to_bits(unsigned_sine) ^ ((quadrant << (sign_bit - 1)) & sign));
  *cosine = from_bits<S>(to_bits(unsigned_cosine) ^ (((quadrant + 1) << (sign_bit - 1)) & sign));
}

#if !defined(__CUDACC__)
// Lanes beyond the range of the reduction, infinities and NaN.
template <class S>
__attribute__((noinline, cold)) void sincos_far(const S& x, S* sine, S* cosine) {
  using T = Scalar<S>;
  const double largest = sizeof(T) == 4 ? kLargestFloatAngle : kLargestDoubleAngle;
  for (int lane = 0; lane < kWidth<S>; ++lane) {
    T angle, result[2];
    __builtin_memcpy(&angle, reinterpret_cast<const T*>(&x) + lane, sizeof angle);
    if (__builtin_fabs(double(angle)) <= largest) continue;
    result[0] = T(std::sin(double(angle)));
    result[1] = T(std::cos(double(angle)));
    __builtin_memcpy(reinterpret_cast<T*>(sine) + lane, &result[0], sizeof angle);
    __builtin_memcpy(reinterpret_cast<T*>(cosine) + lane, &result[1], sizeof angle);
  }
}

template <class S>
LIEROPE_HD void sincos_near(const S& x, S* sine, S* cosine) {
  if constexpr (sizeof(Scalar<S>) == 8) {
    const auto turns = quarter_turns(x);
    sincos_in_quadrant(turns.r, to_bits(turns.shifted), sine, cosine);
  } else if constexpr (!kIsVector<S>) {
    const auto turns = quarter_turns_of_float(double(x));
    sincos_in_quadrant(float(turns.r), int32_t(to_bits(turns.shifted)), sine, cosine);
  } else {
    constexpr int half = kWidth<S> / 2;
    using D = Vector<double, half>;
    const auto lo = quarter_turns_of_float(__builtin_convertvector((part<0, half>(x)), D));
    const auto hi = quarter_turns_of_float(__builtin_convertvector((part<half, half>(x)), D));
    const S r = join(__builtin_convertvector(lo.r, Vector<float, half>),
                     __builtin_convertvector(hi.r, Vector<float, half>));
    sincos_in_quadrant(r, low_words(lo.shifted, hi.shifted), sine, cosine);
  }
}
#endif

// sine and cosine of x to 1.6 units in the last place (rounding r, the polynomial, the sum: 0.5
// each); a double whose sine or cosine is below 2^-48 is right to 2^-101 in absolute terms. sin(-x)
// = -sin(x) and cos(-x) = cos(x) to the bit; NaN for NaN and infinities.
template <class S>
LIEROPE_HD void sincos(const S& x, S* sine, S* cosine) {
#if defined(__CUDACC__)
  ::sincos(double(x), sine, cosine);
#else
  sincos_near(x, sine, cosine);
  using T = Scalar<S>;
  const T largest = T(sizeof(T) == 4 ? kLargestFloatAngle : kLargestDoubleAngle);
  if (__builtin_expect(any(!(absolute(x) <= largest)), 0)) sincos_far(x, sine, cosine);
#endif
}

}  // namespace LIEROPE_ISA
}  // namespace lierope::math
