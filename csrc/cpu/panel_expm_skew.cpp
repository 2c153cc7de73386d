// expm_skew and its adjoint for sides 9 to 128.
#include "../parallel.h"
#include "panel.h"
#include "panel_base.h"
#include "panel_expm.h"
#include "panel_lanes.h"
#include "panel_packed.h"
#include "panel_psi.h"

namespace lierope::cpu::LIEROPE_ISA {
namespace {

// Up to here one matrix a lane is faster: a row would not fill vectors, or leave half of each idle.
template <class T>
constexpr int kLargestInLanes = kLanes<T> >= 16 ? 16 : 0;

template <class T>
class LaneMatrices {
 public:
  using Y = LaneLayout<T>;
  Panel<Y> panel;

  explicit LaneMatrices(int n) : panel(n) {}

  void read(const T* a, int count) { pack_upper(panel.shape, group(a, count), panel.a); }
  void forward(T* r, int count) {
    panel.exponential(1, panel.io, panel.shape.stride);
    unpack(panel.shape, count, r,
           [x = panel.io, stride = panel.shape.stride](int i, int j) { return x[i * stride + j]; });
    poison(r, count, false);
  }
  void backward(const T* grad, T* out, int count) {
    panel.chain(panel.shape.n);
    pack(panel.shape, group(grad, count), panel.io);
    panel.start_from_gradient(panel.io, panel.shape.stride, panel.inverse().matrix);
    panel.pull_back();
    unpack(panel.shape, count, out, [z = panel.z, stride = panel.shape.stride](int i, int j) {
      return j > i ? T(-2) * z[j * stride + i] : Vec<T>{};  // twice the upper part, minus the lower
    });
    poison(out, count, true);
  }

 private:
  LaneGroup<T> group(const T* first, int count) const {
    return {first, count, int64_t(panel.shape.n) * panel.shape.n};
  }
  // NaN into matrices that were not finite: all of them, or above the diagonal.
  void poison(T* out, int count, bool upper) const {
    const int n = panel.shape.n;
    for (int l = 0; l < count; ++l) {
      if (!panel.bad(l)) continue;
      for (int i = 0; i < n; ++i)
        for (int j = upper ? i + 1 : 0; j < n; ++j)
          out[(int64_t(l) * n + i) * n + j] = std::numeric_limits<T>::quiet_NaN();
    }
  }
};

// grad is null in the forward.
template <class T>
void by_rows(const T* a, const T* grad, T* out, int64_t count, int n) {
  const int64_t size = int64_t(n) * n;
  parallel_for(count, panel_grain(n), [&](int64_t begin, int64_t end) {
    Panel<RowLayout<T>> panel(n);
    PackedMatrices<T> packed(panel);
    for (int64_t m = begin; m < end; ++m) {
      packed.read(a + m * size);
      panel.prefetch(m + 1 < end ? a + (m + 1) * size : nullptr,
                     grad == nullptr ? grad : grad + m * size, out + m * size, size);
      if (grad == nullptr) {
        packed.write_exponential(out + m * size);
      } else {
        const bool good = panel.chain(n);
        if (good) {
          packed.start_from_gradient(grad + m * size, panel.inverse().matrix);
          panel.pull_back();
        }
        packed.write_upper_gradient(out + m * size, good);
      }
    }
  });
}

template <class T>
void by_lanes(const T* a, const T* grad, T* out, int64_t count, int n) {
  constexpr int64_t L = kLanes<T>;
  const int64_t size = int64_t(n) * n;
  // Whole groups, so that a matrix meets the same neighbours for any number of threads.
  parallel_for((count + L - 1) / L, (panel_grain(n) + L - 1) / L, [&](int64_t begin, int64_t end) {
    LaneMatrices<T> matrices(n);
    for (int64_t m = begin * L; m < least64(end * L, count); m += L) {
      const int here = int(least64(count - m, L));
      matrices.read(a + m * size, here);
      const bool more = m + 2 * L <= count;
      matrices.panel.prefetch(more ? a + (m + L) * size : nullptr,
                              grad == nullptr ? grad : grad + m * size, out + m * size,
                              here * size);
      grad == nullptr ? matrices.forward(out + m * size, here)
                      : matrices.backward(grad + m * size, out + m * size, here);
    }
  });
}

template <class T>
void run(const void* a, const void* grad, void* out, int64_t count, int64_t n) {
  const auto *x = static_cast<const T*>(a), *g = static_cast<const T*>(grad);
  auto* y = static_cast<T*>(out);
  if constexpr (kLargestInLanes<T> > 0)
    if (n <= kLargestInLanes<T>) return by_lanes(x, g, y, count, int(n));
  by_rows(x, g, y, count, int(n));
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
