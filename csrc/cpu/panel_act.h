// exp(-A) on few rows, and the adjoint of that, without forming exp(A): by Chebyshev polynomials.
#pragma once
#include <limits>

#include "../math/bessel.h"
#include "act_cost.h"
#include "panel_expm.h"
#include "scratch.h"

namespace lierope::cpu::LIEROPE_ISA {

// With M = -A, |A|_2 <= x, and w_k = J_0(x), 2 J_1(x), 2 J_2(x), ..:
//   v_0 = u, v_1 = v_0 M / x, v_{k+1} = (2 / x) v_k M + v_{k-1}, u exp(M) = sum w_k v_k
// (Chebyshev's recurrence on the imaginary axis, bounded there: Tal-Ezer and Kosloff 1984).
// Reversed, for the gradient g of u exp(M), l_k = (-1)^k w_k g + (2 / x) l_{k+1} M + l_{k+2}; then
// the gradient of A, as the matrix whose skew part counts, is
//   -(2 / x) (l_1^T v_0 / 2 + sum_{k >= 1} (-1)^k l_{k+1}^T v_k).
template <class T>
class PanelAct {
 public:
  using Y = RowLayout<T>;

  PanelAct(Panel<Y>& panel, int64_t rows)
      : panel_(panel),
        stride_(panel.shape.stride),
        rows_(rows),
        padded_(round_up(int(least64(rows, kMostActedRows)), kRowStep)),
        mode_(act_mode()),
        able_(rows > 0 && rows <= kMostActedRows && panel.shape.n >= kLeastActedSide &&
              mode_ != Chosen::never),
        step_(able_ ? int64_t(panel.shape.columns) * stride_ : 0),
        v_(able_ ? size() : 0),
        l_(able_ ? size() : 0) {
    if (!able_) return;
    for (int64_t e = 0; e < size(); ++e) v_[e] = l_[e] = 0;  // rows that only fill a step stay zero
  }

  // Whether there are few enough rows for acting ever to be cheaper.
  bool able() const { return able_; }

  // Takes panel.a, of norm at most `bound`; false if forming the exponential is cheaper, one for
  // `members` of a ray, its series for `commutators` products.
  bool choose(T bound, bool backward, int members, double commutators) {
    if (!able_ || !(bound <= T(math::kMostBessel))) return false;
    x_ = bound > T(0.25) ? bound : T(0.25);  // any bound serves
    terms_ = math::chebyshev_weights(x_, 0.5 * std::numeric_limits<T>::epsilon(), weights_);
    if (terms_ < 0) return false;
    return mode_ == Chosen::always ||
           act_is_cheaper(panel_.shape.n, padded_, terms_, bound, backward,
                          double(backward ? math::SkewExp<T, kAdjoint>::theta / 2
                                          : math::SkewExp<T, kForward>::theta),
                          commutators, members);
  }

  // y = u exp(-a), both `rows` rows in panels' strides; y may be u.
  void turn(const T* u, T* y) {
    set_step();
    polynomials(u);
    for (int64_t e = 0; e < rows_ * stride_; ++e) y[e] = T(weights_[0]) * v_[e];
    for (int k = 1; k <= terms_; ++k) {
      const T w = T(weights_[k]), *v = v_ + k * block();
      for (int64_t e = 0; e < rows_ * stride_; ++e) y[e] += w * v[e];
    }
  }

  // x_grad = y_grad exp(-a), and panel.z = psi(ad_a) skew(y_grad^T y) in its lower part.
  void turn_back(const T* y, const T* y_grad, T* x_grad) {
    turn(y_grad, x_grad);
    polynomials(y);
    pull_back(x_grad);
    alternate();
    const Factors<Y> outer{
        l_, stride_, v_, stride_, panel_.shape.rows, terms_ * padded_, panel_.shape.columns};
    multiply<Y, Left::transposed, Part::all>(outer, panel_.into(panel_.spare));
    using V = typename Y::Vector;
    with_transpose<Y>(panel_.shape, panel_.spare,
                      [to = panel_.z, stride = stride_, f = -1 / x_](int i, int j, V p, V t) {
                        put<Y>(to + int64_t(i) * stride + j, f * (p - t));
                      });
  }

 private:
  static constexpr int kForward = math::kForwardTerms<T>, kAdjoint = math::kAdjointTerms<T>;
  Panel<Y>& panel_;
  const int stride_;
  const int64_t rows_;
  const int padded_;
  const Chosen mode_;
  const bool able_;
  Scratch<T> step_, v_, l_;  // (2 / x) M; v_0 ..; l_1 ..
  double weights_[math::kMostBessel + 1];
  T x_ = 1;
  int terms_ = 0;

  int64_t block() const { return int64_t(padded_) * stride_; }
  int64_t size() const { return (math::kMostBessel + 3) * block(); }

  void set_step() {
    const T f = -2 / x_;
    for (int64_t e = 0; e < int64_t(panel_.shape.columns) * stride_; ++e)
      step_[e] = f * panel_.a[e];
  }
  Factors<Y> by_step(const T* left) const {
    return {left, stride_, step_, stride_, padded_, panel_.shape.n, panel_.shape.columns};
  }

  void polynomials(const T* u) {
    std::memcpy(v_, u, size_t(rows_ * stride_) * sizeof(T));
    T* first = v_ + block();
    multiply<Y, Left::plain, Part::all>(by_step(v_), Store<Y>{first, stride_});
    for (int64_t e = 0; e < block(); ++e) first[e] *= T(0.5);
    for (int k = 1; k < terms_; ++k)
      multiply<Y, Left::plain, Part::all>(
          by_step(v_ + k * block()),
          StoreSum<Y, 1>{v_ + (k + 1) * block(), stride_, {v_ + (k - 1) * block()}, {T(1)}});
  }

  // l_k at block k - 1; two blocks of zeros follow l_m. The gradient waits before l_1's rows.
  void pull_back(const T* grad) {
    T* g = v_ + (terms_ + 1) * block();  // behind v_m
    std::memcpy(g, grad, size_t(rows_ * stride_) * sizeof(T));
    std::memset(g + rows_ * stride_, 0, size_t(block() - rows_ * stride_) * sizeof(T));
    std::memset(l_ + terms_ * block(), 0, size_t(2 * block()) * sizeof(T));
    for (int k = terms_; k >= 1; --k) {
      T* l = l_ + (k - 1) * block();
      const T w = T(k % 2 == 0 ? weights_[k] : -weights_[k]);
      multiply<Y, Left::plain, Part::all>(
          by_step(l + block()), StoreSum<Y, 2>{l, stride_, {g, l + 2 * block()}, {w, T(1)}});
    }
  }

  void alternate() {
    for (int k = 0; k < terms_; ++k) {
      const T f = k == 0 ? T(0.5) : (k % 2 == 0 ? T(1) : T(-1));
      for (int64_t e = k * block(); e < (k + 1) * block(); ++e) v_[e] *= f;
    }
  }
};

}  // namespace lierope::cpu::LIEROPE_ISA
