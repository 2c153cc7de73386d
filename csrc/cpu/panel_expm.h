// exp of one skew panel matrix (or one a lane) and the adjoint, by C/S polynomials, squarings and
// doublings.
#pragma once
#include <cstdlib>
#include <limits>

#include "../math/coefficients.h"
#include "panel_passes.h"
#include "panel_product.h"

// Compiled once (panel_expm.cpp), not into every kernel that calls it.
#define LIEROPE_OUTLINE __attribute__((noinline))

namespace lierope::cpu::LIEROPE_ISA {

// Memory that a thread keeps for its panel kernels (one at a time): fresh pages for each call would
// cost as much as a small batch.
class ThreadMemory {
 public:
  ~ThreadMemory() { std::free(block_); }
  char* at_least(size_t bytes) {
    if (bytes > size_) {
      std::free(block_);
      block_ = static_cast<char*>(std::calloc(bytes + kPage, 1));  // zeros: padding starts finite
      if (block_ == nullptr) std::abort();                         // kernels have no way to report
      size_ = bytes;
    }
    return block_ + (kPage - reinterpret_cast<uintptr_t>(block_) % kPage);
  }

 private:
  static constexpr size_t kPage = 4096;
  char* block_ = nullptr;
  size_t size_ = 0;
};

// Matrices of side n that are worth a thread.
inline int64_t panel_grain(int64_t n) { return 1 + 200000 / (n * n * n); }

inline ThreadMemory& thread_memory() {
  static thread_local ThreadMemory memory;
  return memory;
}

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
    const auto lines = [count](const T* x) {
      const char* first = reinterpret_cast<const char*>(x);
      return Ahead::Lines{first, x == nullptr ? first : first + count * int64_t(sizeof(T))};
    };
    const int64_t total =
        ((input != nullptr) + (gradient != nullptr) + 1) * count * int64_t(sizeof(T)) / 64;
    ahead_ = {lines(gradient), lines(output), lines(input),
              1 + int(total / (products * (shape.rows / Y::kTileRows)))};
  }

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

  // The chain T_j = exp(-a / 2^(s - j)), j = 0 .. s; transposed, because R W R^T = T^T (W T) then
  // needs no transposition. It is squared as T - I: the base is small, and its error doubles s
  // times, in the gradient more often than in exponential(), whose base is too large to gain by it.
  // False as for exponential().
  LIEROPE_OUTLINE bool chain() {
    using Table = math::SkewExp<T, math::kAdjointTerms<T>>;
    if (!base<math::kAdjointTerms<T>>(Table::theta / 2, -1, 0, nullptr, 0, s_)) return false;
    const int last = largest(s_);
    for (int j = 0; j < last; ++j) {
      square<true>(link(j), link(j + 1), shape.stride, s_, j);
      add_identity(link(j), shape.stride);
    }
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
  const E* inverse() const { return link(largest(s_)); }  // exp(-a), after chain()

  // w = skew(R^T g) for the gradient g of R = exp(a).
  LIEROPE_OUTLINE void start_from_gradient(const E* g, int g_stride) {
    multiply<Y, Left::plain, Part::all>(factors(inverse(), g, g_stride), into(spare));
    start_from_product();
  }
  // w = skew(p) for the full matrix p in `spare`.
  LIEROPE_OUTLINE void start_from_product() {
    with_transpose<Y>(shape, spare, [to = w, stride = shape.stride](int i, int j, V p, V t) {
      put<Y>(to + int64_t(i) * stride + j, T(0.5) * (p - t));
    });
  }

  // z = psi(ad_a) w, psi(x) = (exp(x) - 1) / x, in its lower part; overwrites w.
  LIEROPE_OUTLINE void pull_back() {
    using Table = math::SkewExp<T, math::kAdjointTerms<T>>;
    constexpr int K = math::kAdjointTerms<T>;
    for (int j = 0; j < largest(s_); ++j) {  // W <- (W + T_j^T W T_j) / 2
      multiply<Y, Left::skew, Part::all>(factors(w, link(j), shape.stride), into(spare));
      multiply<Y, Left::transposed, Part::lower>(factors(link(j), spare, shape.stride),
                                                 StoreMean<Y>{w, shape.stride, s_ > j});
    }
    const E scale = power_of_two<E>(-s_);
    for (int k = 2 * K - 1; k >= 0; --k) {  // Z <- q_k W + [X, Z], and [A, Z] = (Z A)^T - Z A
      const bool first = k == 2 * K - 1;
      const T q = k & 1 ? Table::c[(k + 1) / 2] : Table::s[k / 2];
      const E f = first ? scale * Table::s[K] : scale;
      multiply<Y, Left::skew, Part::all>(factors(first ? w : z, a, shape.stride), into(spare));
      with_transpose<Y>(shape, spare,
                        [q, f, from = w, to = z, stride = shape.stride](int i, int j, V p, V t) {
                          const int64_t at = int64_t(i) * stride + j;
                          put<Y>(to + at, q * get<Y>(from + at) + f * (t - p));
                        });
    }
  }

  // out = x * right for `count` rows x, read in steps of kRowStep.
  LIEROPE_OUTLINE void multiply_rows(const E* x, int count, const E* right, E* out) {
    const int rows = round_up(count, kRowStep);
    multiply<Y, Left::plain, Part::all>(
        Factors<Y>{x, shape.stride, right, shape.stride, rows, shape.n, shape.columns}, into(out));
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

  void clear(E* x) const {
    std::memset(static_cast<void*>(x), 0, sizeof(E) * size_t(shape.columns) * size_t(shape.stride));
  }
  void clear_padding(E* x) const {
    for (int i = 0; i < shape.rows; ++i)
      for (int j = i < shape.n ? shape.n : 0; j < shape.columns; ++j)
        x[int64_t(i) * shape.stride + j] = E{};
  }
  void poison(E* x) const {
    for (int64_t e = 0; e < int64_t(shape.columns) * shape.stride; ++e)
      x[e] = math::constant<E>(std::numeric_limits<T>::quiet_NaN());
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
  Ahead ahead_;
  static constexpr T kMax = std::numeric_limits<T>::max();
  static constexpr int kRefineFrom = 32;

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

  void add_identity(E* x, int stride) const {
    for (int i = 0; i < shape.n; ++i) x[int64_t(i) * stride + i] += T(1);
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

// power_[0] = (a / 2^s)^2, s by the bound (|a^2|_F^2 / 2)^(1/4) on |a|_2, which costs no product.
template <class Y>
typename Panel<Y>::Bits Panel<Y>::scale_square(T theta4) {
  E* b = power_[0];
  multiply<Y, Left::plain, Part::lower>(factors(a, a, shape.stride), into(b));
  const E power = half_square<Y>(shape, b) / theta4;
  Bits s = squarings(power, 2);
  const auto usable = (power <= kMax) & (s <= math::kLargestScaling);  // false for NaN
  bad_ = usable ? Bits{} : Bits{} - 1;
  s = usable ? s : Bits{};
  if (all_bad()) return s;
  mirror<Y>(shape, b, power_of_two<E>(-2 * s), 1);
  return s;
}

// (|a^4|_F^2 / 2)^(1/8) is closer for large matrices: undoes scalings that it shows to be needless.
// Returns the factor 4^t by which power_[0] is then too small.
template <class Y>
typename Panel<Y>::T Panel<Y>::refine(T theta4, Bits& s) {
  if constexpr (Y::kLanewise) {
    return 1;
  } else {
    if (shape.n < kRefineFrom || s == 0) return 1;
    Bits t = -((ceil_log2<T>(half_square<Y>(shape, power_[1]) / (theta4 * theta4)) + 7) >> 3);
    t = t < 0 ? 0 : (t > s ? s : t);
    s -= t;
    return power_of_two<T>(2 * t);
  }
}

// c_ = C - 1 and the last power = S - 1 from the powers B .. B^(K/2), with B = ratio * power_[0]:
// C - 1 = sum c_j B^j + B^(K/2) sum c_(K/2 + j) B^j, j = 1 .. K/2.
template <class Y>
template <int K>
void Panel<Y>::halves(T ratio) {
  using Table = math::SkewExp<T, K>;
  constexpr int P = K / 2;
  T c[K + 1], s[K + 1], scale = 1;
  for (int j = 0; j <= K; ++j, scale *= ratio) {
    c[j] = Table::c[j] * scale;
    s[j] = Table::s[j] * scale;
  }
  const E* x = power_[0];
  E *hc = hc_, *hs = hs_;
  each_lower(shape, [&, slot = slot_, stride = shape.stride](int i, int j) {
    const int64_t at = int64_t(i) * stride + j;
    V high_c{}, high_s{};
    LIEROPE_UNROLL
    for (int m = 1; m <= P; ++m) {
      const V power = get<Y>(x + (m - 1) * slot + at);
      high_c += c[P + m] * power;
      high_s += s[P + m] * power;
    }
    put<Y>(hc + at, high_c);
    put<Y>(hs + at, high_s);
  });
  StoreSum<Y, P> to_c{c_, shape.stride, {}, {}}, to_s{spare, shape.stride, {}, {}};
  for (int m = 1; m <= P; ++m) {
    to_c.term[m - 1] = to_s.term[m - 1] = power_[m - 1];
    to_c.weight[m - 1] = c[m];
    to_s.weight[m - 1] = s[m];
  }
  multiply<Y, Left::symmetric, Part::lower>(factors(hc_, power_[P - 1], shape.stride), to_c);
  multiply<Y, Left::symmetric, Part::lower>(factors(hs_, power_[P - 1], shape.stride), to_s);
}

template <class Y>
template <int K>
bool Panel<Y>::base(T theta, int sign, T diagonal, E* r, int r_stride, Bits& s) {
  constexpr int P = K / 2;
  const T theta4 = theta * theta * theta * theta;
  s = scale_square(theta4);
  if (all_bad()) return false;
  multiply<Y, Left::plain, Part::lower>(factors(power_[0], power_[0], shape.stride),
                                        into(power_[1]));
  const T ratio = refine(theta4, s);
  for (int m = 2; m < P; ++m)
    multiply<Y, Left::symmetric, Part::lower>(factors(power_[m - 1], power_[0], shape.stride),
                                              into(power_[m]));
  mirror<Y>(shape, power_[P - 1], E{} + T(1), 1);
  halves<K>(ratio);
  // K = S A = A + (S - 1) A: S on the left, so that its lower part is enough.
  const E scale = T(sign) * power_of_two<E>(-s);
  E* k = hs_;
  multiply<Y, Left::symmetric, Part::lower>(factors(spare, a, shape.stride), into(k));
  const bool direct = r != nullptr && largest(s) == 0;
  const auto exponential = [scale, k, even_part = c_, odd_part = a, stride = shape.stride](int i,
                                                                                           int j) {
    const int64_t at = int64_t(i) * stride + j;
    const V odd = scale * (get<Y>(k + at) + get<Y>(odd_part + at)), even = get<Y>(even_part + at);
    return Both<V>{even + odd, even - odd};
  };
  fill<Y>(shape, direct ? r : link(0), direct ? r_stride : shape.stride, diagonal, exponential);
  return true;
}

// In panel_expm.cpp.
extern template class Panel<RowLayout<float>>;
extern template class Panel<RowLayout<double>>;

}  // namespace lierope::cpu::LIEROPE_ISA
