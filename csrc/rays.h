// Positions p, 2p, 3p, .. : exp(k A) = exp(A)^k, so that one exponential serves a whole ray.
#pragma once
#include <cstdint>
#include <vector>

#include "params/lie.h"

namespace lierope {

struct RayMember {
  int64_t item;  // sample * points + point
  int64_t multiple;
};

// A root, of multiple 1, and the positions of its sample that are whole multiples of it, upwards.
struct Ray {
  const RayMember* members;
  int64_t count;

  int64_t root() const { return members[0].item; }
  int64_t length() const { return members[count - 1].multiple; }
};

enum class RayOrder { by_root, longest_first };

// The rays of a grid of positions: two fifths of a grid from its corner are multiples of others
// (the share of pairs with a common divisor, 1 - 6/pi^2). Coordinates that no spacing explains make
// a ray each. A member differs from its multiple of the root by at most the rounding of a
// coordinate, 2^-23 of it (2^-52 in double): the exponential's own error is larger.
class Rays {
 public:
  // Of a grid, 4 % lie farther out; errors of powers grow, and so does what a backward keeps.
  static constexpr int64_t kLongest = 16;
  static constexpr int64_t kLargestGap = 4;  // a step costs a product, an exponential ten

  // Of multiples up to `longest`. Each position by itself if that is 0, or where the environment
  // says LIEROPE_RAYS=never.
  explicit Rays(const Lie& lie, int64_t longest = kLongest, RayOrder order = RayOrder::by_root);
  ~Rays();
  Rays(const Rays&) = delete;
  Rays& operator=(const Rays&) = delete;

  // Out of line: kernels that are compiled for one instruction set must emit nothing of a vector
  // that the linker could take for all.
  int64_t count() const;
  int64_t longest() const;  // the largest multiple
  Ray operator[](int64_t ray) const;

 private:
  std::vector<RayMember> members_;
  std::vector<int64_t> first_;
  int64_t longest_ = 1;  // that there is
};

}  // namespace lierope
