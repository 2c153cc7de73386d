// What the moments of the positions of a (head, block) cost beside the series that they replace.
#pragma once
#include "chosen.h"
#include "multi_indices.h"

namespace lierope::cpu::LIEROPE_ISA {

inline Chosen moments_mode() { return chosen("LIEROPE_MOMENTS"); }

// In multiply-adds: psi's polynomial of `degree` for matrices of side n, where a product takes
// `product` and the lower part has `lower` elements. A series is a commutator a degree for each
// ray. Moments take the lower part times each monomial for each ray; dims commutators for each
// monomial but those of the largest degree, once; and memory of each chunk of rays. What does not
// count as such is in the time of so many: a commutator's transposition of n^2 elements, and pages
// that are touched first and summed last. Measured, moments of three dimensions, beyond the
// first-level cache, take up to 1.3 times their count: hence "clearly".
struct MomentsCost {
  double series, moments, commutators, memory;

  MomentsCost(int64_t dims, int degree, int n, double product, double lower)
      : series(degree * (product + 16.0 * n * n)),
        moments(count_multi_indices(dims, degree + 1) * lower),
        commutators(double(dims) * count_multi_indices(dims, degree) * series / degree),
        memory(40 * moments) {}

  bool moments_are_clearly_cheaper(int64_t rays, int64_t chunks) const {
    return double(rays) * moments + commutators + double(chunks) * memory <
           2.0 / 3 * double(rays) * series;
  }
};

}  // namespace lierope::cpu::LIEROPE_ISA
