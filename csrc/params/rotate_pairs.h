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

// q, k: what the forward read. q_grad, k_grad: gradients of what it wrote.
struct RotatePairsBackwardParams {
  Tokens shape;
  View q, k, q_grad, k_grad;
  void *q_out, *k_out;  // gradients of q and k
  const void* angles;
  void* angles_out;  // gradient of angles, same shape and type
  int64_t pairs;
  bool interleaved;
};

}  // namespace lierope
