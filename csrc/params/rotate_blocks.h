// rotate_blocks: y = R x (or R^T x) per token, head and block of features.
#pragma once
#include "tokens.h"

namespace lierope {

// rotations: (per_sample ? B : 1, rotation_heads, M, blocks, block_size, block_size), contiguous.
struct RotateBlocksParams {
  Tokens shape;
  View q, k;
  void *q_out, *k_out;
  const void* rotations;
  int64_t blocks, block_size;
  bool transpose;
};

struct RotateBlocksBackwardParams {
  Tokens shape;
  View q, k, q_grad, k_grad;
  void *q_out, *k_out;
  const void* rotations;
  void* rotations_out;  // sum over batch (if shared), q and k heads of y_grad x^T
  int64_t blocks, block_size;
};

}  // namespace lierope
