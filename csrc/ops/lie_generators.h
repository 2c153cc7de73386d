// The checks that all operators on generators and positions share.
#pragma once
#include "device.h"

namespace lierope {

// Generators and positions as the kernels read them; holds the tensors while a kernel runs.
struct LieTensors {
  Tensor generators, positions;
  Lie lie;

  // generators (C, H, G, b(b-1)/2), positions (..., M, C): contiguous copies are made where needed.
  LieTensors(const char* op, const Tensor& generators, const Tensor& positions);

  // Outputs: the gradient of generators, and that of positions or, when not wanted, an empty
  // tensor.
  Tensor generators_grad() const { return empty(generators, sizes_of(generators)); }
  Tensor positions_grad(bool wanted) const {
    return wanted ? empty(positions, sizes_of(positions)) : empty(positions, {0});
  }
};

}  // namespace lierope
