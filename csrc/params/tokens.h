// Queries and keys as every rotation sees them: strided (B, H, N, D) in, dense (B, H, N, D) out.
#pragma once
#include <cstdint>

#include "dtype.h"

namespace lierope {

// Strides are in elements; the last dimension has stride 1.
struct View {
  const void* data;
  int64_t stride_batch, stride_head, stride_token;
};

struct Tokens {
  DType dtype;
  int64_t batch, tokens, head_dim;  // tokens counts the prefix
  int64_t prefix;                   // the first tokens of each sequence: copied, never rotated
  int64_t q_heads, k_heads;         // k_heads may be 0
  int64_t rotation_heads;   // divides both: head h of H uses rotation h * rotation_heads / H
  bool per_sample;          // angles, rotations or positions have a leading batch dimension
  bool heads_side_by_side;  // outputs lie in memory as (B, N, H, D), else as (B, H, N, D)
};

}  // namespace lierope
