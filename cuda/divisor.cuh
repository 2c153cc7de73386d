// Division by a number the host knows.
#pragma once
#include "portable.cuh"

namespace lierope::cuda {

// Of numbers below 2^52, without the call that 64-bit division is, which would cost registers.
struct Divisor {
  int64_t by;
  double inverse;

  __device__ __forceinline__ int64_t quotient(int64_t x) const {
    const int64_t q = int64_t(double(x) * inverse), rest = x - q * by;
    return q + (rest >= by) - (rest < 0);
  }
};
inline Divisor divisor(int64_t by) { return {by, 1.0 / double(by)}; }

// Of numbers below 2^20, in three instructions instead of twenty: the float quotient of x + 1/2
// errs by less than 1 / 2 by, which is how far it is from an integer.
struct SmallDivisor {
  int by;
  float inverse;  // 0 where `by` is too large for that

  __device__ __forceinline__ int quotient(int x) const {
    return inverse == 0 ? x / by : int((float(x) + 0.5f) * inverse);
  }
};
inline SmallDivisor small_divisor(int64_t by) {
  return {int(by), by < (1 << 19) ? 1.0f / float(by) : 0.0f};
}

}  // namespace lierope::cuda
