// Rotations exp(sum_c p_c A_c) from generators and positions, formed (lie_rotations) or applied at
// once (lie_rotate).
#pragma once
#include "tokens.h"

namespace lierope {

// generators: (dims, heads, blocks, b(b-1)/2), packed strict upper triangles, row-major. positions:
// (samples, points, dims). All contiguous, float (or double when is_double).
struct Lie {
  const void* generators;
  const void* positions;
  int64_t dims, heads, blocks, block_size;
  int64_t samples, points;
  bool is_double;
};

struct LieRotationsParams {
  Lie lie;
  void* rotations;  // (samples, heads, points, blocks, b, b), contiguous
};

struct LieRotationsBackwardParams {
  Lie lie;
  const void* grad;      // of rotations, contiguous
  void* generators_out;  // gradient of generators
  void* positions_out;   // gradient of positions, or null
};

// lie.heads == shape.rotation_heads, lie.points == tokens - prefix, lie.samples == per_sample ?
// batch : 1.
struct LieRotateParams {
  Tokens shape;
  View q, k;
  void *q_out, *k_out;
  Lie lie;
};

// q_rotated, k_rotated: what the forward wrote, y = R x: attention keeps it anyway. With y_grad its
// gradient, x_grad = R^T y_grad and Abar = psi(ad_A) skew(x_grad x^T) = psi(ad_-A) skew(y_grad
// y^T), both of which exp(-A) = R^T gives: R is orthogonal, and e^(-ad_A) psi(ad_A) = psi(-ad_A).
struct LieRotateBackwardParams {
  Tokens shape;
  View q_rotated, k_rotated, q_grad, k_grad;
  void *q_out, *k_out;
  Lie lie;
  void* generators_out;
  void* positions_out;  // or null
};

}  // namespace lierope
