// What it costs to turn rows by a rotation that is formed, and by one that is not.
#pragma once
#include <cmath>

#include "chosen.h"

namespace lierope::cpu::LIEROPE_ISA {

// More rows, and smaller matrices, are always turned by a rotation that is formed.
constexpr int kMostActedRows = 8, kLeastActedSide = 32;

inline Chosen act_mode() { return chosen("LIEROPE_ACT"); }

// Times in products of n x n matrices, which follow benchmarks/results/act-*.json, written by
// `python -m benchmarks.act`: a product of r rows with one is r / n of it, and what does not
// grow with n^3 (gathering rows, norms, transpositions) goes with 1 / n.
// Acting: `terms` products of `rows` rows; four times as many backward (x_grad, v, l, outer
// products). Forming: polynomial and squarings; backward the chain, a doubling and a squaring each,
// and a series or moments of as many products as `commutators`; shared by the `members` of a ray,
// whose others take a step each. `bound` is above the norm, by a factor of 1.5 for two random
// generators.
inline bool act_is_cheaper(int n, int rows, int terms, double bound, bool backward, double theta,
                           double commutators, int members) {
  const double scale = bound / (1.5 * theta);
  const double squarings = scale > 1 ? std::ceil(std::log2(scale)) : 0;
  const double side = n, rows_each = rows / side;
  const double step = (backward ? 2.7 + 40 / side : 1.1 + 20 / side) * (members - 1);
  const double acting =
      backward ? 1.08 * 4 * terms * rows_each + 115 / side : 1.08 * terms * rows_each + 38 / side;
  const double forming =
      backward ? 1.2 + commutators + 220 / side + 2.2 * squarings : 3 + 80 / side + squarings;
  return acting * members < forming + step;
}

}  // namespace lierope::cpu::LIEROPE_ISA
