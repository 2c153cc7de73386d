// Moments of positions, from which one series gives the gradient of a block's generators.
#pragma once
#include "moments_cost.h"
#include "panel_expm.h"
#include "panel_lie.h"

namespace lierope::cpu::LIEROPE_ISA {

// The gradient of generator c is sum_p p_c psi(ad_X) W_p over positions p, where, after s doublings
// of W_p, X = sum_d u_d B_d with B_d = +-A_d / nu_d and u_d = p_d nu_d / 2^s. All p have the B_d in
// common, so that psi's polynomial sum_k q_k x^k, k = 0 .. K, needs of positions the moments
//   M_alpha = sum_p 2^s u^alpha W_p, 1 <= |alpha| <= K + 1,
// alone. With F_alpha = q_K M_alpha for |alpha| = K + 1, and from there down
//   F_alpha = q_(|alpha| - 1) M_alpha + sum_d [B_d, F_(alpha + e_d)],
// which sums the words in the B_d of every order, the gradient is F_(e_c) / nu_c: the p_c before
// psi is one more factor of u^alpha, and the same F serve all generators.

// The lower parts of panel matrices without their upper ones, rows one after another.
template <class Y>
struct PackedLower {
  const Shape<Y> shape;
  const int elements, stride;  // of one matrix; from one to the next

  explicit PackedLower(int n) : shape(n), elements(int(row(shape.rows))), stride(spread()) {}

  int64_t row(int i) const {
    const int64_t band = kBand<Y>, before = i / band;
    return band * band * before * (before + 1) / 2 + i % band * band_end<Y>(i, shape.columns);
  }

 private:
  int spread() const {  // an odd number of cache lines, as in Shape
    constexpr int line = 64 / int(sizeof(typename Y::Number));
    return ((elements + line - 1) / line | 1) * line;
  }
};

// Whether and how the moments of a call are taken.
template <class T>
class MomentsPlan {
 public:
  using Y = RowLayout<T>;
  static constexpr int kDegree = Panel<Y>::kDegree;
  static constexpr int64_t kLeastRays = 64;  // of a chunk, to be worth its memory

  const PackedLower<Y> lower;
  const MomentsCost cost;
  const int64_t chunks;  // of the rays of a (head, block), at most; each has moments of its own
  const bool wanted;
  const MultiIndices indices;
  const int terms;     // rows of products
  const int64_t size;  // of the moments of a chunk

  MomentsPlan(const Lie& lie, int64_t rays, bool possible)
      : lower(int(lie.block_size)),
        cost(lie.dims, kDegree, lower.shape.n,
             double(lower.shape.rows) * lower.shape.n * lower.shape.columns, lower.elements),
        chunks(most_chunks(lie)),
        wanted(possible && choose(rays)),
        indices(lie.dims, wanted ? kDegree + 1 : 0),
        terms(round_up(int(indices.count()), kRowStep)),
        size(int64_t(terms) * lower.stride),
        reach_(lie.dims) {
    if (!wanted) return;
    for (int64_t c = 0; c < lie.dims; ++c) reach_[c] = 0;
    const T* p = static_cast<const T*>(lie.positions);
    for (int64_t e = 0; e < lie.samples * lie.points * lie.dims; ++e) {
      T& reach = reach_[e % lie.dims];
      const T x = p[e] < 0 ? -p[e] : p[e];
      if (x > reach && x <= std::numeric_limits<T>::max()) reach = x;
    }
  }

  // Products that a ray's series takes, or that its moments take the time of.
  double commutators() const { return wanted ? kDegree * cost.moments / cost.series : kDegree; }
  T reach(int64_t c) const { return reach_[c]; }  // the largest finite |p_c|

 private:
  Scratch<T> reach_;

  // Enough to share among threads; 0 where even one for each (head, block) is too much to hold.
  int64_t most_chunks(const Lie& lie) const {
    constexpr double tasks = 32, usual = 1 << 24, most_bytes = 1 << 27;
    const double pairs = double(most64(lie.heads * lie.blocks, 1));
    const double bytes =
        pairs * count_multi_indices(lie.dims, kDegree + 1) * lower.stride * sizeof(T);
    if (!(bytes <= most_bytes)) return 0;
    return most64(int64_t(tasks / pairs < usual / bytes ? tasks / pairs : usual / bytes), 1);
  }
  bool choose(int64_t rays) const {
    const Chosen mode = moments_mode();
    if (rays == 0 || chunks == 0 || mode == Chosen::never) return false;
    const int64_t used = least64(chunks, (rays + kLeastRays - 1) / kLeastRays);
    return mode == Chosen::always || cost.moments_are_clearly_cheaper(rays, used);
  }
};

// The nu_d of one (head, block): powers of two.
template <class T>
class MomentUnits {
 public:
  explicit MomentUnits(const Lie& lie) : dims_(lie.dims), bound_(lie.dims), exponent_(lie.dims) {}

  // Above |A_d|, so that B_d does not grow with its powers; and so that the largest u_d is not
  // small before its scaling by 2^-s, however small A_d, or powers of u would leave the range of T.
  template <class AnyPanel>
  void select(const MomentsPlan<T>& plan, LieBlock<RowLayout<T>>& generators, AnyPanel& panel) {
    constexpr int most_exponent = Exponent<T>::bias - 1;
    for (int64_t d = 0; d < dims_; ++d) {
      bound_[d] = generators.norm_bound(d, panel);
      const T least_unit = plan.reach(d) > 0 ? T(0.5) / plan.reach(d) : T(0);
      const T unit = bound_[d] > least_unit ? bound_[d] : least_unit;
      exponent_[d] =
          unit > 0 ? most(least(int(ceil_log2(unit)), most_exponent), -most_exponent) : 0;
    }
  }
  T bound(int64_t d) const { return bound_[d]; }
  T unit(int64_t d) const { return power(exponent_[d]); }
  T inverse(int64_t d) const { return power(-exponent_[d]); }

 private:
  const int64_t dims_;
  Scratch<T> bound_;
  Scratch<int> exponent_;

  static T power(int e) { return power_of_two<T>(math::Bits<T>(e)); }
};

// The moments of some positions of one (head, block).
template <class T>
class MomentSums {
 public:
  using Y = RowLayout<T>;

  MomentSums(const Lie& lie, const MomentsPlan<T>& plan)
      : dims_(lie.dims),
        plan_(plan),
        units_(lie),
        u_(lie.dims * kHeld),
        monomials_(plan.wanted ? plan.terms * kHeld : 0),
        rows_(plan.wanted ? kHeld * plan.lower.stride : 0) {
    for (int64_t e = 0; plan.wanted && e < plan.terms * kHeld; ++e) monomials_[e] = 0;
    for (int64_t e = 0; e < lie.dims * kHeld; ++e) u_[e] = 0;
  }

  // Of the block selected in `generators`, into `sums`, plan.size numbers.
  template <class AnyPanel>
  void start(LieBlock<RowLayout<T>>& generators, AnyPanel& panel, T* sums) {
    units_.select(plan_, generators, panel);
    sums_ = sums;
    held_ = 0;
    empty_ = true;
  }

  // Adds panel.w at p, after its doublings. Not if the B_d are much larger together than X, because
  // they cancel: the words would then lose digits that the series keeps.
  template <class AnyPanel>
  bool add(const T* p, const AnyPanel& panel) {
    constexpr T most_words = T(1.5) * math::SkewExp<T, math::kAdjointTerms<T>>::theta / 2;
    const T scale = power_of_two<T>(-panel.squarings());
    T words = 0;
    for (int64_t d = 0; d < dims_; ++d) words += (p[d] < 0 ? -p[d] : p[d]) * units_.bound(d);
    if (!(words * scale <= most_words)) return false;

    for (int64_t d = 0; d < dims_; ++d) {
      monomials_[d * kHeld + held_] = p[d] * units_.unit(d);
      u_[d * kHeld + held_] = p[d] * units_.unit(d) * scale;
    }
    T* row = rows_ + held_ * plan_.lower.stride;
    each_lower(plan_.lower.shape, [&row, w = panel.w, stride = panel.shape.stride](int i, int j) {
      store(row, load(w + int64_t(i) * stride + j));
      row += kLanes<T>;
    });
    if (++held_ == kHeld) flush();
    return true;
  }

  // Whether there are any: else nothing was written.
  bool finish() {
    if (held_ > 0) flush();
    return !empty_;
  }

 private:
  // Positions that a product takes together. Sums of sums, as in LieGradients.
  static constexpr int kHeld = 32;
  static constexpr int kStrip = 512 / int(sizeof(T));  // of elements, for the first-level cache

  const int64_t dims_;
  const MomentsPlan<T>& plan_;
  MomentUnits<T> units_;
  Scratch<T> u_, monomials_, rows_;  // u and 2^s u^alpha (.., held); (held, lower part)
  T* sums_ = nullptr;
  int held_ = 0;
  bool empty_ = true;

  // sums (+)= monomials rows. Subnormal numbers, which some processors are slow on, count as zero:
  // what they would add is as much smaller than what a u_d alone adds.
  void flush() {
    constexpr T normal = std::numeric_limits<T>::min();
    const MultiIndices& indices = plan_.indices;
    for (int64_t i = dims_; i < indices.count(); ++i) {
      const T *x = monomials_ + indices.parent(i) * kHeld, *u = u_ + indices.last(i) * kHeld;
      T* y = monomials_ + i * kHeld;
      for (int k = 0; k < kHeld; ++k) {
        const T v = x[k] * u[k];
        y[k] = v < normal && v > -normal ? T(0) : v;
      }
    }
    const int stride = plan_.lower.stride;
    for (int j = 0; j < plan_.lower.elements; j += kStrip) {
      const Factors<Y> f{monomials_,
                         kHeld,
                         rows_ + j,
                         stride,
                         plan_.terms,
                         held_,
                         least(kStrip, plan_.lower.elements - j)};
      T* to = sums_ + j;
      if (empty_)
        multiply<Y, Left::plain, Part::all>(f, Store<Y>{to, stride});
      else
        multiply<Y, Left::plain, Part::all>(f, StoreSum<Y, 1>{to, stride, {to}, {T(1)}});
    }
    empty_ = false;
    held_ = 0;
  }
};

}  // namespace lierope::cpu::LIEROPE_ISA
