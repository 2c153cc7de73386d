// exp(A) of a skew matrix of side 2, 3, 4 and its adjoint in closed form, by unit quaternions.
#pragma once
#include "sincos.h"

namespace lierope::math {
inline namespace LIEROPE_ISA {

// Triangles are packed by rows: a01 a02 .. a12 .. Matrices R are full, by rows.
// The adjoint of dR = R phi(ad_A) dA takes W0 = skew(R^T dL/dR) to Abar = psi(ad_A) W0 with psi(z)
// = (e^z - 1) / z, so that dL = <Abar, dA>.

// With t = |x|: half_sinc = sin(t/2) / t and cosine = cos(t/2). Neither cancels; the series has an
// error of t^6 / 645120.
template <class S>
struct HalfTurn {
  S half_sinc, cosine, squared;  // squared = t^2

  LIEROPE_HD explicit HalfTurn(const S* x) {
    using T = Scalar<S>;
    squared = x[0] * x[0] + x[1] * x[1] + x[2] * x[2];
    const S t = square_root(squared);
    S sine;
    sincos(S(T(0.5) * t), &sine, &cosine);
    const S series = (T(1.0 / 3840) * squared - T(1.0 / 48)) * squared + T(0.5);
    half_sinc = squared < constant<S>(T(1e-4)) ? series : sine / t;
  }
};

// (psi(ad_A) - 1) W for ad_A W = -(x cross w), x and w the vectors of A and W:
// -f2 (x cross w) + f3 x cross (x cross w), f2 = (1 - cos t) / t^2, f3 = (t - sin t) / t^3.
template <class S>
LIEROPE_HD void so3_adjoint_correction(const S* x, const S* w, S* out) {
  using T = Scalar<S>;
  const HalfTurn<S> turn(x);
  const S z = turn.squared, f2 = T(2) * turn.half_sinc * turn.half_sinc;
  // 1/3! - z/5! + z^2/7! - ..; above z = 1/16 what cancels in t - sin t is below rounding beside W.
  constexpr T terms[] = {T(-1.0 / 6227020800), T(1.0 / 39916800), T(-1.0 / 362880),
                         T(1.0 / 5040),        T(-1.0 / 120),     T(1.0 / 6)};
  const S series = horner(terms, z);
  const S closed = (T(1) - T(2) * turn.half_sinc * turn.cosine) / z;
  const S f3 = z < constant<S>(T(0.0625)) ? series : closed;
  const S c[3] = {x[1] * w[2] - x[2] * w[1], x[2] * w[0] - x[0] * w[2], x[0] * w[1] - x[1] * w[0]};
  out[0] = f3 * (x[1] * c[2] - x[2] * c[1]) - f2 * c[0];
  out[1] = f3 * (x[2] * c[0] - x[0] * c[2]) - f2 * c[1];
  out[2] = f3 * (x[0] * c[1] - x[1] * c[0]) - f2 * c[2];
}

// Writes R = M + K and its transpose: M symmetric, K skew.
template <int N, class S>
LIEROPE_HD void symmetric_plus_skew(S* r, int i, int j, const S& m, const S& k) {
  r[i * N + j] = m + k;
  r[j * N + i] = m - k;
}

template <class S>
LIEROPE_HD void expm2(const S* a, S* r) {
  S sine, cosine;
  sincos(a[0], &sine, &cosine);
  r[0] = cosine;
  r[1] = sine;
  r[2] = -sine;
  r[3] = cosine;
}

// Psi is 1 on commuting matrices. A - A is 0, or NaN where the angle has none.
template <class S>
LIEROPE_HD void expm2_adjoint(const S* a, const S* w, S* out) {
  out[0] = w[0] + (a[0] - a[0]);
}

// R^T G - G^T R, with the differences taken before anything is rounded.
template <class S>
LIEROPE_HD void pull_back2(const S* r, const S* g, S* w) {
  w[0] = r[0] * (g[1] - g[2]) - r[1] * (g[0] + g[3]);
}

// The rotation of the unit quaternion (c, y), c = cos(t/2), y = x sin(t/2) / t, x = (a01, a02, a12)
// up to signs.
template <class S>
LIEROPE_HD void expm3(const S* a, S* r) {
  using T = Scalar<S>;
  const HalfTurn<S> turn(a);
  const S h = T(2) * turn.half_sinc, c = turn.cosine;
  const S y01 = h * a[0], y02 = h * a[1], y12 = h * a[2];  // twice y
  const S s01 = y01 * y01, s02 = y02 * y02, s12 = y12 * y12;
  r[0] = T(1) - T(0.5) * (s01 + s02);
  r[4] = T(1) - T(0.5) * (s01 + s12);
  r[8] = T(1) - T(0.5) * (s02 + s12);
  symmetric_plus_skew<3>(r, 0, 1, S(T(-0.5) * y02 * y12), S(c * y01));
  symmetric_plus_skew<3>(r, 0, 2, S(T(0.5) * y01 * y12), S(c * y02));
  symmetric_plus_skew<3>(r, 1, 2, S(T(-0.5) * y01 * y02), S(c * y12));
}

template <class S>
LIEROPE_HD void expm3_adjoint(const S* a, const S* w, S* out) {
  S correction[3];
  so3_adjoint_correction(a, w, correction);
  LIEROPE_UNROLL
  for (int e = 0; e < 3; ++e) out[e] = w[e] + correction[e];
}

// so(4) = so(3) + so(3): A = A+ + A-, which commute. plus, minus: twice the vectors of the two
// parts.
template <class S>
LIEROPE_HD void split4(const S* a, S* plus, S* minus) {
  const S dual[3] = {a[5], -a[4], a[3]};  // a23, a31, a12
  LIEROPE_UNROLL
  for (int e = 0; e < 3; ++e) {
    plus[e] = a[e] + dual[e];
    minus[e] = a[e] - dual[e];
  }
}

// (cos u I + A+ sin u / u)(cos v I + A- sin v / v): the left and right multiplication by two unit
// quaternions.
template <class S>
LIEROPE_HD void expm4(const S* a, S* r) {
  S p[3], m[3];
  split4(a, p, m);
  const HalfTurn<S> plus(p), minus(m);
  const S cp = plus.cosine, cm = minus.cosine;
  LIEROPE_UNROLL
  for (int e = 0; e < 3; ++e) {
    p[e] = plus.half_sinc * p[e];
    m[e] = minus.half_sinc * m[e];
  }
  const S d = cp * cm, d0 = p[0] * m[0], d1 = p[1] * m[1], d2 = p[2] * m[2];
  r[0] = d - (d0 + d1 + d2);
  r[5] = d - (d0 - d1 - d2);
  r[10] = d - (d1 - d0 - d2);
  r[15] = d - (d2 - d0 - d1);
  S k[3], l[3];
  LIEROPE_UNROLL
  for (int e = 0; e < 3; ++e) {
    const S left = cm * p[e], right = cp * m[e];
    k[e] = left + right;
    l[e] = left - right;
  }
  symmetric_plus_skew<4>(r, 0, 1, S(p[1] * m[2] - p[2] * m[1]), k[0]);
  symmetric_plus_skew<4>(r, 0, 2, S(p[2] * m[0] - p[0] * m[2]), k[1]);
  symmetric_plus_skew<4>(r, 0, 3, S(p[0] * m[1] - p[1] * m[0]), k[2]);
  symmetric_plus_skew<4>(r, 1, 2, S(-(p[0] * m[1] + p[1] * m[0])), l[2]);
  symmetric_plus_skew<4>(r, 3, 1, S(-(p[0] * m[2] + p[2] * m[0])), l[1]);
  symmetric_plus_skew<4>(r, 2, 3, S(-(p[1] * m[2] + p[2] * m[1])), l[0]);
}

template <class S>
LIEROPE_HD void expm4_adjoint(const S* a, const S* w, S* out) {
  using T = Scalar<S>;
  S p[3], m[3], wp[3], wm[3], plus[3], minus[3];
  split4(a, p, m);
  split4(w, wp, wm);
  LIEROPE_UNROLL
  for (int e = 0; e < 3; ++e) m[e] = -m[e];  // [A-, W-] turns the other way
  so3_adjoint_correction(p, wp, plus);
  so3_adjoint_correction(m, wm, minus);
  LIEROPE_UNROLL
  for (int e = 0; e < 3; ++e) {
    const S sum = T(0.5) * (plus[e] + minus[e]), difference = T(0.5) * (plus[e] - minus[e]);
    out[e] = w[e] + sum;
    out[5 - e] = e == 1 ? w[4] - difference : w[5 - e] + difference;
  }
}

}  // namespace LIEROPE_ISA
}  // namespace lierope::math
