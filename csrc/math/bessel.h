// Bessel functions J_0(x) .. J_m(x), the weights of exp(A) in Chebyshev polynomials.
#pragma once
#include "portable.h"

namespace lierope::math {
inline namespace LIEROPE_ISA {

constexpr int kMostBessel = 128;

// exp(z) = J_0(x) + 2 sum_k J_k(x) i^k T_k(z / (i x)) for z in i [-x, x]: fills weights[k] = J_0, 2
// J_1, 2 J_2, .. up to the m behind which they sum to less than `tolerance` (|i^k T_k| <= 1), and
// returns m; -1 if m would be larger than kMostBessel. By Miller's downward recurrence J_{k-1} = (2
// k / x) J_k - J_{k+1}, normalised by J_0 + 2 J_2 + 2 J_4 + .. = 1 (DLMF 10.74(iv), 10.12.4); x >
// 0.
inline int chebyshev_weights(double x, double tolerance, double* weights) {
  if (!(x < kMostBessel)) return -1;
  const int start = 40 + int(1.5 * x);  // J_start(x) < 1e-26, and J_40(0) is
  const double two_over_x = 2 / x;
  double values[40 + 2 * kMostBessel];
  values[start + 1] = 0;
  values[start] = 1e-300;
  double sum = 0;
  for (int k = start; k > 0; --k) {
    values[k - 1] = k * two_over_x * values[k] - values[k + 1];
    if (values[k - 1] > 1e250) {  // only their ratios count
      for (int i = k - 1; i <= start; ++i) values[i] *= 1e-250;
      sum *= 1e-250;
    }
    if (k % 2 == 1) sum += (k == 1 ? 1 : 2) * values[k - 1];
  }
  double tail = 0;
  int m = start;
  for (; m > 1; --m) {
    tail += 2 * __builtin_fabs(values[m]);
    if (tail > tolerance * __builtin_fabs(sum)) break;
  }
  if (m > kMostBessel) return -1;
  weights[0] = values[0] / sum;
  for (int k = 1; k <= m; ++k) weights[k] = 2 * values[k] / sum;
  return m;
}

}  // namespace LIEROPE_ISA
}  // namespace lierope::math
