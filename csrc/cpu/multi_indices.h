// The monomials of positions whose moments are taken: multi-indices, by degree.
#pragma once
#include <cstdint>

#include "scratch.h"

namespace lierope::cpu::LIEROPE_ISA {

// C(dims + degree, degree) - 1, of 1 <= |alpha| <= degree; as many as a double holds.
inline double count_multi_indices(int64_t dims, int degree) {
  double count = 1;
  for (int k = 1; k <= degree; ++k) count = count * double(dims + k) / k;
  return count - 1;
}

// A multi-index is the product of another one, its parent, and a last variable that is none before
// the parent's. The first `dims` are the variables themselves.
class MultiIndices {
 public:
  // 1 <= |alpha| <= degree; none if that is 0.
  MultiIndices(int64_t dims, int degree)
      : count_(int64_t(count_multi_indices(dims, degree) + 0.5)),
        parent_(count_),
        last_(count_),
        child_(count_),
        first_(degree + 2) {
    int64_t at = 0;
    for (; degree > 0 && at < dims; ++at) {
      parent_[at] = -1;
      last_[at] = at;
    }
    first_[0] = first_[1] = 0;
    for (int k = 1; k <= degree; ++k) {
      const int64_t end = first_[k + 1] = at;
      for (int64_t i = first_[k]; k < degree && i < end; ++i) {
        child_[i] = at;
        for (int64_t d = last_[i]; d < dims; ++d, ++at) {
          parent_[at] = i;
          last_[at] = d;
        }
      }
    }
  }

  int64_t count() const { return count_; }
  // Those of degree k are first(k) .. first(k + 1) - 1.
  int64_t first(int k) const { return first_[k]; }
  int64_t parent(int64_t i) const { return parent_[i]; }
  int64_t last(int64_t i) const { return last_[i]; }
  // The product with variable d, of a multi-index below the largest degree.
  int64_t times(int64_t i, int64_t d) const {
    if (d >= last_[i]) return child_[i] + d - last_[i];
    const int64_t before = parent_[i] < 0 ? d : times(parent_[i], d);
    return child_[before] + last_[i] - last_[before];
  }

 private:
  const int64_t count_;
  Scratch<int64_t> parent_, last_, child_, first_;
};

}  // namespace lierope::cpu::LIEROPE_ISA
