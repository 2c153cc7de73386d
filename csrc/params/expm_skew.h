// expm_skew: the exponential of the skew matrix given by each strict upper triangle, and its
// adjoint.
#pragma once
#include <cstdint>

namespace lierope {

struct ExpmSkewParams {
  const void* a;  // (count, n, n), contiguous; only the strict upper triangle is read
  void* r;        // (count, n, n)
  int64_t count, n;
  bool is_double;
};

struct ExpmSkewBackwardParams {
  const void* a;
  const void* grad;  // of r
  void* out;         // gradient of a: 2 Abar in the strict upper triangle, zero elsewhere
  int64_t count, n;
  bool is_double;
};

constexpr int64_t kExpmSkewLargest = 128;  // larger matrices go through torch.matrix_exp

}  // namespace lierope
