// rotate_pairs: (x0, x1) -> (x0 cos t - x1 sin t, x0 sin t + x1 cos t) on the first 2 * pairs
// features.
#pragma once
#include "tokens.h"

namespace lierope {

// M = tokens - prefix. angles: (per_sample ? B : 1, rotation_heads, M, pairs), contiguous, float
// (double for f64).
struct RotatePairsParams {
  Tokens shape;
  View q, k;
  void *q_out, *k_out;
  const void* angles;
  int64_t pairs;
  bool interleaved;  // pairs (2i, 2i + 1); else (i, i + pairs)
  bool inverse;      // rotate by -t
};

// q_rotated, k_rotated: what the forward wrote (attention keeps it anyway). q_grad, k_grad: its
// gradients. The gradient of an angle is y0 y_grad1 - y1 y_grad0: a pair and its gradient turn
// together, so that it is x0 x_grad1 - x1 x_grad0 too.
struct RotatePairsBackwardParams {
  Tokens shape;
  View q_rotated, k_rotated, q_grad, k_grad;
  void *q_out, *k_out;  // gradients of q and k
  const void* angles;
  void* angles_out;  // gradient of angles, same shape and type
  int64_t pairs;
  bool interleaved;
};

}  // namespace lierope
