// parallel_ranges by way of LibTorch's thread pool.
#include "parallel.h"

#include <torch/csrc/stable/ops.h>

namespace lierope {

void parallel_ranges(int64_t n, int64_t grain, RangeBody body, void* context) {
  if (n <= 0) return;
  torch::stable::parallel_for(0, n, grain > 0 ? grain : 1,
                              [&](int64_t begin, int64_t end) { body(context, begin, end); });
}

}  // namespace lierope
