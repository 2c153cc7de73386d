// rotate_circulant: per block of features, irfft(exp(i t) rfft(x)) with t given for modes 1 ..
// (block_size - 1) / 2.
#pragma once
#include <initializer_list>

#include "tokens.h"

namespace lierope {

constexpr int64_t kCirculantLargest = 4096;

// The block sizes whose FFT the kernels hold: products of 2, 3 and 5 that have a mode to turn.
constexpr bool circulant_block_supported(int64_t b) {
  if (b < 3 || b > kCirculantLargest) return false;
  for (int64_t prime : {2, 3, 5}) {
    while (b % prime == 0) b /= prime;
  }
  return b == 1;
}

// angles: (per_sample ? B : 1, rotation_heads, M, blocks * ((block_size - 1) / 2)), contiguous.
struct RotateCirculantParams {
  Tokens shape;
  View q, k;
  void *q_out, *k_out;
  const void* angles;
  int64_t blocks, block_size;
  bool inverse;  // multiply by exp(-i t)
};

// q_rotated, k_rotated: what the forward wrote. A mode and its gradient turn together, so that the
// gradient of an angle is the same of y and y_grad as of x and x_grad.
struct RotateCirculantBackwardParams {
  Tokens shape;
  View q_rotated, k_rotated, q_grad, k_grad;
  void *q_out, *k_out;
  const void* angles;
  void* angles_out;
  int64_t blocks, block_size;
};

}  // namespace lierope
