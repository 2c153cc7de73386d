// Packed matrices into and out of a panel with rows in vectors; sides of whole vectors in place.
#pragma once
#include "panel_expm.h"

namespace lierope::cpu::LIEROPE_ISA {

template <class T>
class PackedMatrices {
 public:
  using Y = RowLayout<T>;

  explicit PackedMatrices(Panel<Y>& panel)
      : panel_(panel), shape_(panel.shape), whole_(shape_.columns == shape_.n) {}

  // panel.a = the skew matrix of a's strict upper triangle.
  void read(const T* a) {
    if (whole_) return skew_from_upper(shape_, a, shape_.n, panel_.a);
    copy_matrix(a, shape_.n, panel_.a, shape_.stride, shape_.n);
    skew_from_upper(shape_, panel_.a, shape_.stride, panel_.a);
  }
  void write_exponential(T* r) { finish(r, panel_.exponential(1, target(r), stride())); }

  // r = x, a matrix of the panel, or NaN where there is none.
  void write(const T* x, T* r) const {
    if (x == nullptr) return finish(r, false);
    copy_matrix(x, shape_.stride, r, shape_.n, shape_.n);
  }

  // panel.w for the gradient of R, with its inverse.
  void start_from_gradient(const T* grad, const T* inverse) {
    if (!whole_) copy_matrix(grad, shape_.n, panel_.io, shape_.stride, shape_.n);
    panel_.start_from_gradient(whole_ ? grad : panel_.io, stride(), inverse);
  }
  // out = twice panel.z above the diagonal, or NaN there if the matrix was not finite.
  void write_upper_gradient(T* out, bool good) {
    if (!good) panel_.poison(panel_.z);
    upper_gradient(shape_, panel_.z, target(out), stride());
    finish(out, true);
  }

 private:
  Panel<Y>& panel_;
  const Shape<Y>& shape_;
  const bool whole_;

  T* target(T* out) const { return whole_ ? out : panel_.io; }
  int stride() const { return whole_ ? shape_.n : shape_.stride; }
  void finish(T* out, bool good) const {
    const int n = shape_.n;
    if (!good) {
      for (int i = 0; i < n * n; ++i) out[i] = std::numeric_limits<T>::quiet_NaN();
    } else if (!whole_) {
      copy_matrix(panel_.io, shape_.stride, out, n, n);
    }
  }
};

}  // namespace lierope::cpu::LIEROPE_ISA
