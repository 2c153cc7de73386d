// parallel_ranges by way of LibTorch's thread pool.
#include "parallel.h"

#include <torch/csrc/stable/ops.h>

#include <atomic>
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace lierope {

namespace {

// A forked child has none of its parent's threads, but OpenMP's pool does not know: a child of a
// process whose pool has been at work would wait for them for ever. It works alone instead; results
// do not depend on the number of threads.
std::atomic<bool> pool_used{false}, alone{false};

#if defined(__unix__) || defined(__APPLE__)
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, [] {
  if (pool_used.load(std::memory_order_relaxed)) alone.store(true, std::memory_order_relaxed);
});
#endif

}  // namespace

void parallel_ranges(int64_t n, int64_t grain, RangeBody body, void* context) {
  if (n <= 0) return;
  if (alone.load(std::memory_order_relaxed)) return body(context, 0, n);
  torch::stable::parallel_for(0, n, grain > 0 ? grain : 1, [&](int64_t begin, int64_t end) {
    if (end - begin < n) pool_used.store(true, std::memory_order_relaxed);
    body(context, begin, end);
  });
}

}  // namespace lierope
