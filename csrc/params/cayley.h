// cayley: P = (I - S)(I + S)^-1 for skew S given by its strict upper triangle; cayley_rotate: P x
// without forming P.
#pragma once
#include "tokens.h"

namespace lierope {

struct CayleyParams {
  const void* s;  // (count, n, n), contiguous; only the strict upper triangle is read
  void* p;        // (count, n, n)
  int64_t count, n;
  bool is_double;
};

struct CayleyBackwardParams {
  const void* p;
  const void* grad;  // of p
  void* out;         // gradient of s: strict upper triangle, zero elsewhere
  int64_t count, n;
  bool is_double;
};

struct CayleyRotateParams {
  DType dtype;
  int64_t batch, heads, tokens, n;
  View x;
  void* out;          // (batch, heads, tokens, n), contiguous
  const void* s;      // (s_heads, n, n), contiguous, float (double for f64)
  int64_t s_heads;    // divides heads
  int64_t bandwidth;  // entries with |i - j| > bandwidth count as zero
  bool transpose;     // P^T x
};

}  // namespace lierope
