// Minimax coefficients of the skew exponential: exp(A) = C(B) + A S(B) with B = A^2, both
// polynomials even in A.
#pragma once
#include "portable.h"

namespace lierope::math {
inline namespace LIEROPE_ISA {

// C(B) = sum c[j] B^j and S(B) = sum s[j] B^j for j = 0 .. K; degree 2K + 1 in A. For skew A with
// |A|_2 <= theta the backward error |log(exp(-z) p(z))| / |z| on the spectrum z = i t is at most
// the unit roundoff of T (Remez fit with c[0] = s[0] = 1 held, so that exp(0) = I exactly;
// near-minimax on Chebyshev nodes for double). The adjoint reads the same numbers as psi(z) =
// (exp(z) - 1) / z = 1 + c[1] z + s[1] z^2 + c[2] z^3 + s[2] z^4 + ... with |ad_X| <= 2 |X|, hence
// for |X|_2 <= theta / 2.
template <class T, int K>
struct SkewExp;

template <>
struct SkewExp<float, 4> {
  static constexpr float theta = 1.570f;
  static constexpr float c[5] = {1.f, .4999996588182487f, .041664814132604235f,
                                 .0013861691247254223f, 2.331603842460158e-05f};
  static constexpr float s[5] = {1.f, .1666666047325514f, .00833308849024612f,
                                 .00019811139179799167f, 2.608996532183525e-06f};
};

template <>
struct SkewExp<float, 6> {
  static constexpr float theta = 3.72f;
  static constexpr float c[7] = {1.f,
                                 .49999979274424516f,
                                 .04166624358931121f,
                                 .0013886417891940694f,
                                 2.4739524247724416e-05f,
                                 2.679379194647014e-07f,
                                 1.6279494837952561e-09f};
  static constexpr float s[7] = {1.f,
                                 .16666662995589404f,
                                 .008333281373903257f,
                                 .00019838817398559682f,
                                 2.750392595546009e-06f,
                                 2.4460223239972474e-08f,
                                 1.2772685431623476e-10f};
};

template <>
struct SkewExp<double, 8> {
  static constexpr double theta = 1.811;
  static constexpr double c[9] = {1.,
                                  .499999999999999938,
                                  .0416666666666642636,
                                  .00138888888887349422,
                                  .0000248015872640040936,
                                  2.75573147162476609e-7,
                                  2.08764631777518143e-9,
                                  1.14601217547625202e-11,
                                  4.57875222465732676e-14};
  static constexpr double s[9] = {1.,
                                  .166666666666666663,
                                  .00833333333333320644,
                                  .000198412698411885526,
                                  2.75573192041420518e-6,
                                  2.50521060056241212e-8,
                                  1.60588887502286583e-10,
                                  7.64155773635123945e-13,
                                  2.7056069597092092e-15};
};

// Terms of the forward polynomial, and of the adjoint's series with the smaller exponential that
// its doublings need: fewest products over the norms of LieRE's initialisation.
template <class T>
inline constexpr int kForwardTerms = 6;
template <>
inline constexpr int kForwardTerms<double> = 8;
template <class T>
inline constexpr int kAdjointTerms = 4;
template <>
inline constexpr int kAdjointTerms<double> = 8;

// Squarings are clamped here: 2^40 theta is far beyond where rounding has destroyed every digit of
// the angle.
inline constexpr int kLargestScaling = 40;

}  // namespace LIEROPE_ISA
}  // namespace lierope::math
