// Packed matrices into and out of a panel.
#pragma once
#include "panel_expm.h"
#include "panel_lanes.h"

namespace lierope::cpu::LIEROPE_ISA {

// With rows in vectors: sides of whole vectors in place.
template <class Y>
class PackedMatrices {
 public:
  using T = typename Y::Number;

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

// With a matrix in each lane: of LaneGroup or LanePlaces.
template <class T>
class PackedMatrices<LaneLayout<T>> {
 public:
  using Y = LaneLayout<T>;

  explicit PackedMatrices(Panel<Y>& panel) : panel_(panel), shape_(panel.shape) {}

  void read(const LaneGroup<const T>& a) { pack_upper(shape_, a, panel_.a); }
  template <class Group>
  void write_exponential(const Group& r) {
    panel_.exponential(1, panel_.io, shape_.stride);
    write(panel_.io, r);
  }
  template <class Group>
  void write(const Vec<T>* x, const Group& r) const {
    unpack(shape_, r, [x, stride = shape_.stride](int i, int j) { return x[i * stride + j]; });
    poison(r, false);
  }
  template <class Group>
  void start_from_gradient(const Group& grad, const Vec<T>* inverse) {
    pack(shape_, grad, panel_.io);
    panel_.start_from_gradient(panel_.io, shape_.stride, inverse);
  }
  template <class Group>
  void write_upper_gradient(const Group& out, bool) {
    unpack(shape_, out, [z = panel_.z, stride = shape_.stride](int i, int j) {
      return j > i ? T(-2) * z[j * stride + i] : Vec<T>{};  // twice the upper part, minus the lower
    });
    poison(out, true);
  }

 private:
  Panel<Y>& panel_;
  const Shape<Y>& shape_;

  // NaN into matrices that were not finite: all of them, or above the diagonal.
  template <class Group>
  void poison(const Group& out, bool upper) const {
    const int n = shape_.n;
    for (int l = 0; l < kLanes<T>; ++l) {
      if (!panel_.bad(l) || !out.has(l)) continue;
      for (int i = 0; i < n; ++i)
        for (int j = upper ? i + 1 : 0; j < n; ++j)
          out[l][i * n + j] = std::numeric_limits<T>::quiet_NaN();
    }
  }
};

}  // namespace lierope::cpu::LIEROPE_ISA
