// The checks that all operators on generators and positions share.
#pragma once
#include "device.h"

namespace lierope {

// Generators and positions as the kernels read them; holds the tensors while a kernel runs.
struct LieTensors {
  Tensor generators, positions;
  Lie lie;

  // Checks generators (C, H, G, b(b-1)/2) and positions (..., M, C).
  LieTensors(const char* op, const Tensor& generators, const Tensor& positions);
  // After the last check: makes contiguous copies where needed.
  void read(const char* op);

  // Outputs: the gradient of generators, and that of positions or, when not wanted, an empty
  // tensor.
  Tensor generators_grad(const char* op) const {
    return empty(op, generators, sizes_of(generators));
  }
  Tensor positions_grad(const char* op, bool wanted) const {
    return empty(op, positions, wanted ? sizes_of(positions) : std::vector<int64_t>{0});
  }
};

}  // namespace lierope
