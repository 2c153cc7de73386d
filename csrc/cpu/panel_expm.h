// exp of one skew panel matrix (or one a lane) and its adjoint, by squarings and doublings.
#pragma once
#include <limits>

#include "../math/coefficients.h"
#include "panel_memory.h"
#include "panel_passes.h"
#include "panel_product.h"

// Compiled once (panel_expm.cpp), not into every kernel that calls it.
#define LIEROPE_OUTLINE __attribute__((noinline))

namespace lierope::cpu::LIEROPE_ISA {

// Matrices of side n that are worth a thread.
inline int64_t panel_grain(int64_t n) { return 1 + 200000 / (n * n * n); }

// Buffers and steps for matrices of one side on one thread. Callers write the full skew matrix into
// `a`, zero in its padding, then call exponential(), or chain(), a way to set w, and pull_back().
template <class Y>
class Panel {
 public:
  using T = typename Y::Number;
  using E = typename Y::Element;
  using V = typename Y::Vector;
  using Bits = math::Bits<E>;

  const Shape<Y> shape;
  E *a, *w, *z, *spare, *io;  // input; W; its pull-back (lower part); free between calls

  explicit Panel(int n) : shape(n) {
    // Buffers start 5 cache lines further each, or stores to one would wait on loads from another
    // at the same address modulo 4096.
    const int64_t size = int64_t(shape.columns) * shape.stride;
    slot_ =
        size + 5 * 64 / int64_t(sizeof(E)) + (Y::kLanewise ? 0 : -size % (64 / int64_t(sizeof(E))));
    E* next = reinterpret_cast<E*>(thread_memory().at_least(
        sizeof(E) * size_t(slot_) * (kBuffers + math::kLargestScaling + 1)));
    E** const all[kBuffers] = {&a,   &w,  &z,         &spare,     &io,        &hc_,
                               &hs_, &c_, &power_[0], &power_[1], &power_[2], &power_[3]};
    for (E** buffer : all) {
      *buffer = next;
      next += slot_;
    }
    chain_ = next;
    // Padding may hold anything, since no sum over k passes n; but that of `a` and its square
    // enters the norms.
    clear(a);
    clear(power_[0]);
  }

  // `count` elements each will soon be needed of the next input and of this gradient (null: none),
  // and of this output.
  void prefetch(const T* input, const T* gradient, const T* output, int64_t count) {
    constexpr int products = 6;  // at least
    ahead_ = {{gradient, count}, {output, count}, {input, count}, turns(products)};
  }
  // The same of lines that lie apart, within `products`.
  void prefetch(Ahead::Places places, int products) { ahead_ = {places, turns(products)}; }

  // r = exp(sign a). False if a is not finite (or beyond all scaling): r is then unspecified.
  LIEROPE_OUTLINE bool exponential(int sign, E* r, int r_stride) {
    Bits s;
    if (!base<math::kForwardTerms<T>>(math::SkewExp<T, math::kForwardTerms<T>>::theta, sign, 1, r,
                                      r_stride, s))
      return false;
    E *x = link(0), *y = link(1);
    const int last = largest(s);
    for (int t = 0; t < last; ++t) {
      if (t + 1 < last)
        square<false>(x, y, shape.stride, s, t);
      else
        square<false>(x, r, r_stride, s, t);
      E* swap = x;
      x = y;
      y = swap;
    }
    return true;
  }

  // A matrix whose 2^squarings-th power is meant.
  struct Root {
    const E* matrix;
    int squarings;
    int power() const { return 1 << squarings; }
  };

  // exp(sign a) for `rows` rows to be turned by it: where they are few, turning them 2^m times by
  // the root costs less than its last m squarings. A null matrix if a is not finite.
  LIEROPE_OUTLINE Root root(int sign, int64_t rows) {
    constexpr int K = math::kForwardTerms<T>;
    Bits s;
    if (!base<K>(math::SkewExp<T, K>::theta, sign, 1, nullptr, 0, s)) return {nullptr, 0};
    E *x = link(0), *y = link(1);
    const int left = squarings_left(rows, largest(s));
    for (int t = 0; t < largest(s) - left; ++t) {
      square<false>(x, y, shape.stride, s, t);
      E* swap = x;
      x = y;
      y = swap;
    }
    return {x, left};
  }

  // exp(sign a) - I, whose error does not drown in that of I. Null if a is not finite.
  LIEROPE_OUTLINE const E* difference(int sign) {
    constexpr int K = math::kForwardTerms<T>;
    Bits s;
    if (!base<K>(math::SkewExp<T, K>::theta, sign, 0, nullptr, 0, s)) return nullptr;
    E *x = link(0), *y = link(1);
    for (int t = 0; t < largest(s); ++t) {
      square<true>(x, y, shape.stride, s, t);
      E* swap = x;
      x = y;
      y = swap;
    }
    return x;
  }

  // The chain T_j = exp(-a / 2^(s - j)), j = 0 .. s; transposed, because R W R^T = T^T (W T) then
  // needs no transposition. It is squared as T - I: the base is small, and its error doubles s
  // times, in the gradient more often than in exponential(), whose base is too large to gain by it.
  // The last link is left out if only `rows` rows are to be turned by it: see inverse(). False as
  // for exponential(). `kept`, if any, becomes the last link less I.
  LIEROPE_OUTLINE bool chain(int64_t rows, E* kept = nullptr) {
    using Table = math::SkewExp<T, math::kAdjointTerms<T>>;
    if (!base<math::kAdjointTerms<T>>(Table::theta / 2, -1, 0, nullptr, 0, s_)) return false;
    left_ = least(squarings_left(rows, largest(s_)), 1);
    const int last = largest(s_) - left_;
    for (int j = 0; j < last; ++j) {
      square<true>(link(j), link(j + 1), shape.stride, s_, j);
      add_identity(link(j), shape.stride);
    }
    if (kept != nullptr) copy(link(last), kept);
    add_identity(link(last), shape.stride);
    return true;
  }
  // Whether the matrix of this lane was not finite.
  bool bad(int lane) const {
    if constexpr (Y::kLanewise)
      return bad_[lane] != 0;
    else
      return bad_ != 0;
  }
  Root inverse() const { return {link(largest(s_) - left_), left_}; }  // exp(-a), after chain()

  // w = skew(R^T g) for the gradient g of R and its inverse.
  LIEROPE_OUTLINE void start_from_gradient(const E* g, int g_stride, const E* inverse) {
    multiply<Y, Left::plain, Part::all>(factors(inverse, g, g_stride), into(spare));
    start_from_product();
  }
  // w = skew(p) for the full matrix p in `spare`.
  LIEROPE_OUTLINE void start_from_product() {
    with_transpose<Y>(shape, spare, [to = w, stride = shape.stride](int i, int j, V p, V t) {
      put<Y>(to + int64_t(i) * stride + j, T(0.5) * (p - t));
    });
  }

  // z = psi(ad_a) w, psi(x) = (exp(x) - 1) / x, in its lower part; overwrites w. In panel_psi.h.
  void pull_back() {
    double_up();
    series();
  }
  void double_up();  // w = W of psi(ad_a) w = psi(ad_X) W, X = a / 2^squarings()
  void series();     // z = psi(ad_X) w
  Bits squarings() const { return s_; }
  // Of psi's polynomial, k = 0 .. kDegree.
  static constexpr int kDegree = 2 * math::kAdjointTerms<T>;
  static constexpr T coefficient(int k) {
    using Table = math::SkewExp<T, math::kAdjointTerms<T>>;
    return k & 1 ? Table::c[(k + 1) / 2] : Table::s[k / 2];
  }

  // w = x + e^(ad_a) w for a skew matrix x, in its lower part, after a whole chain.
  LIEROPE_OUTLINE void add_to_turned(const E* x) {
    const E* t = inverse().matrix;
    multiply<Y, Left::skew, Part::all>(factors(w, t, shape.stride), into(spare));
    multiply<Y, Left::transposed, Part::lower>(factors(t, spare, shape.stride),
                                               StoreSum<Y, 1>{w, shape.stride, {x}, {T(1)}});
  }

  // The `count` rows of x, read in steps of kRowStep, times right^power: in x or y, which are both
  // overwritten.
  LIEROPE_OUTLINE E* turn(E* x, E* y, int count, const E* right, int power) {
    const int rows = round_up(count, kRowStep);
    for (int t = 0; t < power; ++t) {
      multiply<Y, Left::plain, Part::all>(
          Factors<Y>{x, shape.stride, right, shape.stride, rows, shape.n, shape.columns}, into(y));
      E* swap = x;
      x = y;
      y = swap;
    }
    return x;
  }
  // spare (+)= x^T y over `count` rows.
  LIEROPE_OUTLINE void add_outer(const E* x, const E* y, int count, bool first) {
    const Factors<Y> f{x, shape.stride, y, shape.stride, shape.rows, count, shape.columns};
    if (first)
      multiply<Y, Left::transposed, Part::all>(f, into(spare));
    else
      multiply<Y, Left::transposed, Part::all>(
          f, StoreSum<Y, 1>{spare, shape.stride, {spare}, {T(1)}});
  }

  // (|m^4|_F^2 / 2)^(1/8) >= |m|_2 of a skew matrix m, close above it; infinite where that
  // overflows.
  LIEROPE_OUTLINE E norm_bound(const E* m) {
    multiply<Y, Left::plain, Part::lower>(factors(m, m, shape.stride), into(power_[0]));
    mirror<Y>(shape, power_[0], E{} + T(1), 1);
    multiply<Y, Left::plain, Part::lower>(factors(power_[0], power_[0], shape.stride),
                                          into(power_[1]));
    E bound = half_square<Y>(shape, power_[1]);
    for (int i = 0; i < 3; ++i) bound = math::square_root(bound);
    return bound * (1 + 64 * std::numeric_limits<T>::epsilon());
  }

  void add_identity(E* x, int stride) const {
    for (int i = 0; i < shape.n; ++i) x[int64_t(i) * stride + i] += T(1);
  }
  void copy(const E* x, E* y) const {
    std::memcpy(static_cast<void*>(y), x, sizeof(E) * size_t(shape.rows) * size_t(shape.stride));
  }
  void clear(E* x) const {
    std::memset(static_cast<void*>(x), 0, sizeof(E) * size_t(shape.columns) * size_t(shape.stride));
  }
  void clear_padding(E* x) const {
    for (int i = 0; i < shape.rows; ++i)
      for (int j = i < shape.n ? shape.n : 0; j < shape.columns; ++j)
        x[int64_t(i) * shape.stride + j] = E{};
  }
  // NaN into x, or those of its lanes whose matrix was not finite.
  void poison(E* x) const {
    const E nan = math::constant<E>(std::numeric_limits<T>::quiet_NaN());
    for (int64_t e = 0; e < int64_t(shape.columns) * shape.stride; ++e) {
      if constexpr (Y::kLanewise)
        x[e] = bad_ != 0 ? nan : x[e];
      else
        x[e] = nan;
    }
  }

  Factors<Y> factors(const E* left, const E* right, int right_stride) {
    return {left, shape.stride, right, right_stride, shape.rows, shape.n, shape.columns, &ahead_};
  }
  Store<Y> into(E* out) const { return {out, shape.stride}; }

 private:
  static constexpr int kBuffers = 12;
  int64_t slot_;
  E *hc_, *hs_, *c_, *power_[4], *chain_;
  Bits s_{}, bad_{};
  int left_ = 0;  // squarings that the chain stops short of
  Ahead ahead_;
  static constexpr T kMax = std::numeric_limits<T>::max();
  static constexpr int kRefineFrom = 32;

  int turns(int products) const { return products * (shape.rows / Y::kTileRows); }
  bool all_bad() const { return !Y::kLanewise && bad(0); }
  E* link(int j) const { return chain_ + j * slot_; }

  static int largest(Bits s) {
    if constexpr (Y::kLanewise) {
      int result = 0;
      for (int l = 0; l < Y::kGroup; ++l) result = most(result, int(s[l]));
      return result;
    } else {
      return int(s);
    }
  }
  template <bool beside_identity>
  void square(const E* x, E* y, int y_stride, Bits s, int step) {
    multiply<Y, Left::plain, Part::all>(
        factors(x, x, shape.stride),
        StoreSquare<Y, beside_identity>{y, y_stride, x, shape.stride, s > step});
  }

  // Squarings, of s, that cost more than to turn the rows twice as often. Lanes need different
  // numbers of them, so they all have theirs.
  int squarings_left(int64_t rows, int s) const {
    if (Y::kLanewise) return 0;
    if (rows < kRowStep) rows = kRowStep;
    int left = 0;
    while (left < s && (rows << left) < shape.n) ++left;
    return left;
  }

  // Smallest s >= 0 with bound / 2^s <= theta, where power = (bound / theta)^(2^log).
  static Bits squarings(E power, int log) {
    const Bits s = (ceil_log2(power) + ((1 << log) - 1)) >> log;
    return s > 0 ? s : Bits{};
  }

  // r, or link 0 if there is no r or s > 0, becomes exp(sign a / 2^s) - (1 - diagonal) I.
  template <int K>
  bool base(T theta, int sign, T diagonal, E* r, int r_stride, Bits& s);
  template <int K>
  void halves(T ratio);
  Bits scale_square(T theta4);
  T refine(T theta4, Bits& s);
};

// In panel_expm.cpp.
extern template class Panel<RowLayout<float>>;
extern template class Panel<RowLayout<double>>;
#if LIEROPE_VECTOR_BYTES == 64
extern template class Panel<LaneLayout<float>>;
#endif

}  // namespace lierope::cpu::LIEROPE_ISA
