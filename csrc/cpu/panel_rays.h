// Panels along a ray of positions: powers of one exponential, one pull-back for all members.
#pragma once
#include "../rays.h"
#include "panel_expm.h"
#include "scratch.h"

namespace lierope::cpu::LIEROPE_ISA {

// R, R^2, R^3, .. of R = exp(a) or its inverse.
template <class Y>
class Powers {
 public:
  using T = typename Y::Number;
  using E = typename Y::Element;

  explicit Powers(Panel<Y>& panel)
      : panel_(panel), step_(size()), whole_(size()), even_(size()), odd_(size()) {}

  // Of exp(sign a), or of exp(-a) and with its chain. False if a is not finite.
  bool start(int sign) {
    const E* difference = panel_.difference(sign);
    if (difference == nullptr) return false;
    panel_.copy(difference, step_);
    return start();
  }
  bool start_with_chain() { return panel_.chain(panel_.shape.n, step_) && start(); }

  const E* current() const { return whole_; }
  // R^(k+1) - I = (R^k - I) + (R - I) + (R^k - I) (R - I): steps of R^k itself, near I, would round
  // its diagonal the same way each time.
  void advance() {
    E* next = difference_ == even_ ? odd_ : even_;
    multiply<Y, Left::plain, Part::all>(
        panel_.factors(difference_, step_, panel_.shape.stride),
        StoreSum<Y, 2>{next, panel_.shape.stride, {difference_, step_}, {T(1), T(1)}});
    difference_ = next;
    add_identity();
  }

 private:
  Panel<Y>& panel_;
  Scratch<E> step_, whole_, even_, odd_;  // R - I; R^k; R^k - I
  const E* difference_ = nullptr;

  int64_t size() const { return int64_t(panel_.shape.columns) * panel_.shape.stride; }
  bool start() {
    difference_ = step_;
    add_identity();
    return true;
  }
  void add_identity() {
    panel_.copy(difference_, whole_);
    panel_.add_identity(whole_, panel_.shape.stride);
  }
};

// f(member, the one after it or null, R^multiple) for each member of a ray; no R where the powers
// could not be started.
template <class Y, class F>
void each_power(Powers<Y>& powers, bool started, const Ray& ray, F&& f) {
  int64_t multiple = 1;
  for (int64_t m = 0; m < ray.count; ++m) {
    for (; started && multiple < ray.members[m].multiple; ++multiple) powers.advance();
    f(ray.members[m], m + 1 < ray.count ? &ray.members[m + 1] : nullptr,
      started ? powers.current() : nullptr);
  }
}

// With W_k of the multiple k of A, the gradient of A is
//   sum_k k psi(k ad_A) W_k = psi(ad_A) sum_m e^(m ad_A) sum_(k > m) W_k, m = 0, 1, ..,
// since k psi(k x) = (e^(k x) - 1) / x = psi(x) (1 + e^x + .. + e^((k - 1) x)). The sum over m is
// Horner's, a conjugation each.
template <class Y>
class RaySums {
 public:
  using E = typename Y::Element;

  RaySums(Panel<Y>& panel, int64_t longest)
      : panel_(panel),
        size_(int64_t(panel.shape.columns) * panel.shape.stride),
        kept_(longest * size_) {}

  void clear() {
    for (bool& k : has_) k = false;
  }
  // Adds panel.w as that of a multiple.
  void keep(int64_t multiple) {
    E* to = slot(multiple);
    const bool first = !has_[multiple];
    has_[multiple] = true;
    add(panel_.w, first ? nullptr : to, to);
  }
  // panel.w = the sum over m, from multiples up to `length`.
  void collect(int64_t length) {
    int64_t largest = length;  // the multiple whose slot holds the sum over those from m + 1 on
    panel_.copy(slot(length), panel_.w);
    for (int64_t m = length - 1; m > 0; --m) {
      if (has_[m]) {
        add(slot(largest), slot(m), slot(m));
        largest = m;
      }
      panel_.add_to_turned(slot(largest));
    }
  }

 private:
  Panel<Y>& panel_;
  const int64_t size_;
  Scratch<E> kept_;
  bool has_[Rays::kLongest + 1] = {};

  E* slot(int64_t multiple) const { return kept_ + (multiple - 1) * size_; }
  // out = x (+ y) in the lower part.
  void add(const E* x, const E* y, E* out) const {
    each_lower(panel_.shape, [=, stride = panel_.shape.stride](int i, int j) {
      const int64_t at = int64_t(i) * stride + j;
      put<Y>(out + at, y == nullptr ? get<Y>(x + at) : get<Y>(x + at) + get<Y>(y + at));
    });
  }
};

}  // namespace lierope::cpu::LIEROPE_ISA
