// psi(ad_a) of a panel, psi(x) = (exp(x) - 1) / x: its doublings and its series.
#pragma once
#include "panel_expm.h"

namespace lierope::cpu::LIEROPE_ISA {

// psi(2 x) = psi(x) (1 + e^x) / 2: W <- (W + T_j^T W T_j) / 2 up the chain.
template <class Y>
LIEROPE_OUTLINE void Panel<Y>::double_up() {
  for (int j = 0; j < largest(s_); ++j) {
    multiply<Y, Left::skew, Part::all>(factors(w, link(j), shape.stride), into(spare));
    multiply<Y, Left::transposed, Part::lower>(factors(link(j), spare, shape.stride),
                                               StoreMean<Y>{w, shape.stride, s_ > j});
  }
}

// Horner's: Z <- q_k W + [X, Z], and [A, Z] = (Z A)^T - Z A.
template <class Y>
LIEROPE_OUTLINE void Panel<Y>::series() {
  const E scale = power_of_two<E>(-s_);
  for (int k = kDegree - 1; k >= 0; --k) {
    const bool first = k == kDegree - 1;
    const T q = coefficient(k);
    const E f = first ? scale * coefficient(kDegree) : scale;
    multiply<Y, Left::skew, Part::all>(factors(first ? w : z, a, shape.stride), into(spare));
    with_transpose<Y>(shape, spare,
                      [q, f, from = w, to = z, stride = shape.stride](int i, int j, V p, V t) {
                        const int64_t at = int64_t(i) * stride + j;
                        put<Y>(to + at, q * get<Y>(from + at) + f * (t - p));
                      });
  }
}

}  // namespace lierope::cpu::LIEROPE_ISA
