// Kernels with planted faults, each beside its sound form: what the emulation must see. Prints one
// line a kernel: its name and the error, or the number of wrong results.
#include <cstdio>
#include <string>
#include <vector>

#include "../../cuda/portable.cuh"

using lierope::cuda::kFullWarp;
using lierope::cuda::Launch;

constexpr int kThreads = 64;

template <bool barrier>
__global__ void reversed(float* y) {
  LIEROPE_SHARED(float, s, kThreads);
  s[threadIdx.x] = float(threadIdx.x);
  if (barrier) __syncthreads();
  y[threadIdx.x] = s[kThreads - 1 - threadIdx.x] - float(kThreads - 1 - threadIdx.x);
}

// The second barrier keeps a fast thread from overwriting what a slow one has yet to read.
template <bool barrier>
__global__ void reversed_twice(float* y) {
  LIEROPE_DYNAMIC_SHARED(float, s);
  float sum = 0;
  for (int round = 0; round < 2; ++round) {
    s[threadIdx.x] = float(threadIdx.x + 100 * round);
    __syncthreads();
    sum += s[kThreads - 1 - threadIdx.x];
    if (barrier) __syncthreads();
  }
  y[threadIdx.x] = sum - float(2 * (kThreads - 1 - threadIdx.x) + 100);
}

template <bool barrier>
__global__ void neighbour_of_warp(float* y) {
  LIEROPE_SHARED(float, s, kThreads);
  s[threadIdx.x] = float(threadIdx.x);
  if (barrier) __syncwarp();
  y[threadIdx.x] = s[threadIdx.x ^ 1] - float(threadIdx.x ^ 1);
}

template <bool all>
__global__ void barrier_for_some(float* y) {
  if (all || threadIdx.x < 40) __syncthreads();
  y[threadIdx.x] = 0;
}

template <bool all>
__global__ void two_barriers(float* y) {
  if (all || threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
  y[threadIdx.x] = 0;
}

template <bool all>
__global__ void shuffle_for_some(float* y) {
  float v = 1;
  if (all || threadIdx.x % 32 < 16)
    v = __shfl_xor_sync(kFullWarp, v, 1);
  else
    __syncthreads();
  y[threadIdx.x] = v - 1;
}

template <bool inside>
__global__ void shuffle_of_a_part(float* y) {
  float v = 1;
  if (threadIdx.x % 32 < 8) v = __shfl_sync(0xffu, v, inside ? 7 : 8);
  y[threadIdx.x] = v - 1;
}

template <bool inside>
__global__ void writes_shared(float* y) {
  LIEROPE_DYNAMIC_SHARED(float, s);
  s[threadIdx.x + (inside ? 0 : 1)] = 1;
  y[threadIdx.x] = 0;
}

template <bool inside>
__global__ void writes_global(float* y) {
  y[threadIdx.x + (inside ? 0 : 1)] = 0;
}

template <bool written>
__global__ void reads_unwritten(float* y) {
  LIEROPE_SHARED(float, s, kThreads);
  if (written) s[threadIdx.x] = 0;
  y[threadIdx.x] = s[threadIdx.x];
}

static void report(const char* name, void (*kernel)(float*), int shared_bytes) {
  std::vector<float> y(kThreads, 1);
  std::string outcome;
  try {
    LIEROPE_LAUNCH(kernel, 1, kThreads, shared_bytes, (Launch{nullptr, nullptr, 4, 232448, 90}),
                   y.data());
    int wrong = 0;
    for (float v : y) wrong += v != 0;
    outcome = std::to_string(wrong) + " wrong";
  } catch (const std::exception& error) {
    outcome = error.what();
  }
  std::printf("%s: %s\n", name, outcome.c_str());
  std::fflush(stdout);  // a sanitizer may end the next one
}

#define REPORT(kernel, shared)                        \
  if (only.empty() || only == #kernel) {              \
    report("sound " #kernel, kernel<true>, shared);   \
    report("faulty " #kernel, kernel<false>, shared); \
  }

int main(int argc, char** argv) {
  const std::string only = argc > 1 ? argv[1] : "";
  constexpr int kBytes = kThreads * int(sizeof(float));
  REPORT(reversed, 0)
  REPORT(reversed_twice, kBytes)
  REPORT(neighbour_of_warp, 0)
  REPORT(barrier_for_some, 0)
  REPORT(two_barriers, 0)
  REPORT(shuffle_for_some, 0)
  REPORT(shuffle_of_a_part, 0)
  REPORT(writes_shared, kBytes)
  REPORT(reads_unwritten, 0)
  if (only == "writes_global") {
    REPORT(writes_global, 0)
  }
  if (only.empty()) report("impossible launch", reversed<true>, 1 << 20);
}
