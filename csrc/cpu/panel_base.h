// exp(a / 2^s) of a panel: the scaling by bounds that come free, and the C/S polynomial.
#pragma once
#include "panel_expm.h"

namespace lierope::cpu::LIEROPE_ISA {

// power_[0] = (a / 2^s)^2, s by the bound (|a^2|_F^2 / 2)^(1/4) on |a|_2, which costs no product.
template <class Y>
typename Panel<Y>::Bits Panel<Y>::scale_square(T theta4) {
  E* b = power_[0];
  multiply<Y, Left::plain, Part::lower>(factors(a, a, shape.stride), into(b));
  const E power = half_square<Y>(shape, b) / theta4;
  Bits s = squarings(power, 2);
  const auto usable = (power <= kMax) & (s <= math::kLargestScaling);  // false for NaN
  bad_ = usable ? Bits{} : Bits{} - 1;
  s = usable ? s : Bits{};
  if (all_bad()) return s;
  mirror<Y>(shape, b, power_of_two<E>(-2 * s), 1);
  return s;
}

// (|a^4|_F^2 / 2)^(1/8) is closer for large matrices: undoes scalings that it shows to be needless.
// Returns the factor 4^t by which power_[0] is then too small.
template <class Y>
typename Panel<Y>::T Panel<Y>::refine(T theta4, Bits& s) {
  if constexpr (Y::kLanewise) {
    return 1;
  } else {
    if (shape.n < kRefineFrom || s == 0) return 1;
    Bits t = -((ceil_log2<T>(half_square<Y>(shape, power_[1]) / (theta4 * theta4)) + 7) >> 3);
    t = t < 0 ? 0 : (t > s ? s : t);
    s -= t;
    return power_of_two<T>(2 * t);
  }
}

// c_ = C - 1 and the last power = S - 1 from the powers B .. B^(K/2), with B = ratio * power_[0]:
// C - 1 = sum c_j B^j + B^(K/2) sum c_(K/2 + j) B^j, j = 1 .. K/2.
template <class Y>
template <int K>
void Panel<Y>::halves(T ratio) {
  using Table = math::SkewExp<T, K>;
  constexpr int P = K / 2;
  T c[K + 1], s[K + 1], scale = 1;
  for (int j = 0; j <= K; ++j, scale *= ratio) {
    c[j] = Table::c[j] * scale;
    s[j] = Table::s[j] * scale;
  }
  const E* x = power_[0];
  E *hc = hc_, *hs = hs_;
  each_lower(shape, [&, slot = slot_, stride = shape.stride](int i, int j) {
    const int64_t at = int64_t(i) * stride + j;
    V high_c{}, high_s{};
    LIEROPE_UNROLL
    for (int m = 1; m <= P; ++m) {
      const V power = get<Y>(x + (m - 1) * slot + at);
      high_c += c[P + m] * power;
      high_s += s[P + m] * power;
    }
    put<Y>(hc + at, high_c);
    put<Y>(hs + at, high_s);
  });
  StoreSum<Y, P> to_c{c_, shape.stride, {}, {}}, to_s{spare, shape.stride, {}, {}};
  for (int m = 1; m <= P; ++m) {
    to_c.term[m - 1] = to_s.term[m - 1] = power_[m - 1];
    to_c.weight[m - 1] = c[m];
    to_s.weight[m - 1] = s[m];
  }
  multiply<Y, Left::symmetric, Part::lower>(factors(hc_, power_[P - 1], shape.stride), to_c);
  multiply<Y, Left::symmetric, Part::lower>(factors(hs_, power_[P - 1], shape.stride), to_s);
}

template <class Y>
template <int K>
bool Panel<Y>::base(T theta, int sign, T diagonal, E* r, int r_stride, Bits& s) {
  constexpr int P = K / 2;
  const T theta4 = theta * theta * theta * theta;
  s = scale_square(theta4);
  if (all_bad()) return false;
  multiply<Y, Left::plain, Part::lower>(factors(power_[0], power_[0], shape.stride),
                                        into(power_[1]));
  const T ratio = refine(theta4, s);
  for (int m = 2; m < P; ++m)
    multiply<Y, Left::symmetric, Part::lower>(factors(power_[m - 1], power_[0], shape.stride),
                                              into(power_[m]));
  mirror<Y>(shape, power_[P - 1], E{} + T(1), 1);
  halves<K>(ratio);
  // K = S A = A + (S - 1) A: S on the left, so that its lower part is enough.
  const E scale = T(sign) * power_of_two<E>(-s);
  E* k = hs_;
  multiply<Y, Left::symmetric, Part::lower>(factors(spare, a, shape.stride), into(k));
  const bool direct = r != nullptr && largest(s) == 0;
  const auto exponential = [scale, k, even_part = c_, odd_part = a, stride = shape.stride](int i,
                                                                                           int j) {
    const int64_t at = int64_t(i) * stride + j;
    const V odd = scale * (get<Y>(k + at) + get<Y>(odd_part + at)), even = get<Y>(even_part + at);
    return Both<V>{even + odd, even - odd};
  };
  fill<Y>(shape, direct ? r : link(0), direct ? r_stride : shape.stride, diagonal, exponential);
  return true;
}

}  // namespace lierope::cpu::LIEROPE_ISA
