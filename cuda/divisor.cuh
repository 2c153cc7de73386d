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

}  // namespace lierope::cuda
