// What it costs to turn rows by a rotation that is formed, and by one that is not.
#pragma once
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "../math/portable.h"

namespace lierope::cpu::LIEROPE_ISA {

// More rows, and smaller matrices, are always turned by a rotation that is formed.
constexpr int kMostActedRows = 8, kLeastActedSide = 32;

// LIEROPE_ACT=never or always overrules the costs; for measuring them and for tests.
enum class ActMode { by_cost, never, always };
inline ActMode act_mode() {
  const char* word = std::getenv("LIEROPE_ACT");
  if (word == nullptr) return ActMode::by_cost;
  return std::strcmp(word, "always") == 0  ? ActMode::always
         : std::strcmp(word, "never") == 0 ? ActMode::never
                                           : ActMode::by_cost;
}

// Times in products of n x n matrices, which follow benchmarks/results/act-*.json, written by
// `python -m benchmarks.act`: a product of r rows with one is r / n of it, and what does not
// grow with n^3 (gathering rows, norms, transpositions) goes with 1 / n.
// Acting: `terms` products of `rows` rows; four times as many backward (x_grad, v, l, outer
// products). Forming: polynomial and squarings; backward the chain, a doubling and a squaring each,
// and a series or moments of as many products as `commutators`; shared by the `members` of a ray,
// whose others take a step each. `bound` is
// above the norm, by a factor of 1.5 for two random generators.
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
