// expm_skew and its adjoint for sides 9 to 128.
#include "../parallel.h"
#include "panel.h"
#include "panel_packed.h"

namespace lierope::cpu::LIEROPE_ISA {
namespace {

// What packed matrices of a layout are read and written as.
template <class Y, class P>
auto group(P* first, int64_t count, int64_t size) {
  if constexpr (Y::kLanewise)
    return LaneGroup<P>{first, int(count), size};
  else
    return first;
}

// grad is null in the forward. Whole groups, so that a matrix meets the same neighbours for any
// number of threads.
template <class Y, class T>
void in_groups(const T* a, const T* grad, T* out, int64_t count, int n) {
  constexpr int64_t L = Y::kGroup;
  const int64_t size = int64_t(n) * n;
  parallel_for((count + L - 1) / L, (panel_grain(n) + L - 1) / L, [&](int64_t begin, int64_t end) {
    Panel<Y> panel(n);
    PackedMatrices<Y> packed(panel);
    for (int64_t m = begin * L; m < least64(end * L, count); m += L) {
      const int64_t here = least64(count - m, L), at = m * size;
      packed.read(group<Y>(a + at, here, size));
      panel.prefetch(m + 2 * L <= count ? a + at + L * size : nullptr,
                     grad == nullptr ? grad : grad + at, out + at, here * size);
      if (grad == nullptr) {
        packed.write_exponential(group<Y>(out + at, here, size));
        continue;
      }
      const bool good = panel.chain(n);
      if (good) {
        packed.start_from_gradient(group<Y>(grad + at, here, size), panel.inverse().matrix);
        panel.pull_back();
      }
      packed.write_upper_gradient(group<Y>(out + at, here, size), good);
    }
  });
}

template <class T>
void run(const void* a, const void* grad, void* out, int64_t count, int64_t n) {
  with_layout<T>(n, [&](auto layout) {
    in_groups<decltype(layout)>(static_cast<const T*>(a), static_cast<const T*>(grad),
                                static_cast<T*>(out), count, int(n));
  });
}

}  // namespace

void panel_expm_skew(const ExpmSkewParams& p) {
  p.is_double ? run<double>(p.a, nullptr, p.r, p.count, p.n)
              : run<float>(p.a, nullptr, p.r, p.count, p.n);
}

void panel_expm_skew_backward(const ExpmSkewBackwardParams& p) {
  p.is_double ? run<double>(p.a, p.grad, p.out, p.count, p.n)
              : run<float>(p.a, p.grad, p.out, p.count, p.n);
}

}  // namespace lierope::cpu::LIEROPE_ISA
