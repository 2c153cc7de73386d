// The table of the skew exponential where device code may read it by a running index.
#pragma once
#include "../csrc/math/coefficients.h"
#include "portable.cuh"

namespace lierope::cuda {

template <class T, int K>
struct SkewTerms {
  T c[K + 1], s[K + 1];
};

template <class T, int K>
consteval SkewTerms<T, K> skew_terms() {
  SkewTerms<T, K> terms{};
  for (int j = 0; j <= K; ++j) {
    terms.c[j] = math::SkewExp<T, K>::c[j];
    terms.s[j] = math::SkewExp<T, K>::s[j];
  }
  return terms;
}

// psi(z) = (exp(z) - 1) / z = sum v[k] z^k.
template <class T, int K>
struct PsiTerms {
  T v[2 * K + 1];
};
template <class T, int K>
consteval PsiTerms<T, K> psi_terms() {
  PsiTerms<T, K> terms{};
  for (int k = 0; k <= 2 * K; ++k)
    terms.v[k] = k % 2 == 1 ? math::SkewExp<T, K>::c[(k + 1) / 2] : math::SkewExp<T, K>::s[k / 2];
  return terms;
}

}  // namespace lierope::cuda
