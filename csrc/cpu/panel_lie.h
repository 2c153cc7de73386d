// Loops over the rotations of generators and positions for panel blocks.
#pragma once
#include "../parallel.h"
#include "../params/lie.h"
#include "../rays.h"
#include "panel_expm.h"
#include "panel_rays.h"
#include "scratch.h"

namespace lierope::cpu::LIEROPE_ISA {

struct RotationIndex {
  int64_t sample, head, block, point;

  RotationIndex(const Lie& lie, int64_t pair, int64_t item)
      : sample(item / lie.points),
        head(pair / lie.blocks),
        block(pair % lie.blocks),
        point(item % lie.points) {}
};

// The same with one rotation in each lane, or none.
template <class T>
struct LaneIndex {
  int64_t head, block, sample[kLanes<T>], point[kLanes<T>];

  LaneIndex(const Lie& lie, int64_t pair) : head(pair / lie.blocks), block(pair % lie.blocks) {
    for (int64_t& p : point) p = -1;
  }
  void set(const Lie& lie, int lane, int64_t item) {
    sample[lane] = item / lie.points;
    point[lane] = item % lie.points;
  }
  bool has(int lane) const { return point[lane] >= 0; }
};

// The generators of one (head, block), unpacked to the lower part of padded matrices, which all
// lanes share.
template <class Y>
class LieBlock {
 public:
  using T = typename Y::Number;
  using E = typename Y::Element;
  using V = typename Y::Vector;

  LieBlock(const Lie& lie, const Shape<Y>& shape)
      : lie_(lie),
        shape_(shape),
        size_(int64_t(shape.columns) * shape.stride),
        unpacked_(lie.dims * size_),
        norms_(lie.dims),
        unit_(lie.dims) {
    std::memset(unpacked_, 0,
                size_t(lie.dims * size_) * sizeof(T));  // diagonal and padding stay zero
  }

  void select(int64_t head, int64_t block) {
    if (head == head_ && block == block_) return;
    head_ = head;
    block_ = block;
    has_norms_ = false;
    const int64_t n = shape_.n, packed = n * (n - 1) / 2;
    for (int64_t c = 0; c < lie_.dims; ++c) {
      const T* u = static_cast<const T*>(lie_.generators) +
                   ((c * lie_.heads + head) * lie_.blocks + block) * packed;
      T* g = unpacked_ + c * size_;
      for (int64_t i = 0; i < n; ++i)
        for (int64_t j = i + 1; j < n; ++j) g[j * shape_.stride + i] = -*u++;
    }
  }

  const T* position(int64_t item) const {
    return static_cast<const T*>(lie_.positions) + item * lie_.dims;
  }
  const T* generator(int64_t c) const { return unpacked_ + c * size_; }
  int64_t size() const { return size_; }
  // The numbers that meet the vector there.
  static auto weight(const T* g) {
    if constexpr (Y::kLanewise)
      return *g;
    else
      return load(g);
  }

  // |A_c|_2 is at most this, close above it. Uses panel's buffers.
  template <class AnyPanel>
  T norm_bound(int64_t c, AnyPanel& panel) {
    if (!has_norms_) {
      for (int64_t d = 0; d < lie_.dims; ++d) norms_[d] = find_norm(d, panel);
      has_norms_ = true;
    }
    return norms_[c];
  }
  // |sum_c p_c A_c|_2 is at most this.
  template <class AnyPanel>
  T norm_bound(const T* p, AnyPanel& panel) {
    T bound = 0;
    for (int64_t c = 0; c < lie_.dims; ++c)
      bound += (p[c] < 0 ? -p[c] : p[c]) * norm_bound(c, panel);
    return bound;
  }

  // a = sign sum_c p_c A_c. The lower part is computed and mirrored: skew to the bit.
  template <int sign = 1>
  void contract(const E* p, E* a) const {
    fill<Y>(shape_, a, shape_.stride, 0, [&](int i, int j) {
      const T* g = unpacked_ + int64_t(i) * shape_.stride + j;
      V v = p[0] * weight(g);
      for (int64_t c = 1; c < lie_.dims; ++c) v += p[c] * weight(g + c * size_);
      return sign > 0 ? Both<V>{v, -v} : Both<V>{-v, v};
    });
  }

 private:
  const Lie& lie_;
  const Shape<Y>& shape_;
  const int64_t size_;
  Scratch<T> unpacked_, norms_, unit_;
  bool has_norms_ = false;
  int64_t head_ = -1, block_ = -1;

  // By a power of two, or eighth powers would leave the range of T from 1e-5 and 1e5 on.
  template <class AnyPanel>
  T find_norm(int64_t c, AnyPanel& panel) {
    T largest = 0;
    for (int64_t e = 0; e < size_; ++e) {
      const T x = generator(c)[e];
      largest = x > largest ? x : (-x > largest ? -x : largest);
    }
    constexpr int most_exponent = Exponent<T>::bias - 1;
    const auto e =
        math::Bits<T>(most(least(int(ceil_log2(largest)), most_exponent), -most_exponent));
    for (int64_t d = 0; d < lie_.dims; ++d) unit_[d] = d == c ? power_of_two<T>(-e) : T(0);
    contract(unit_, panel.spare);
    const T bound = panel.norm_bound(panel.spare) * power_of_two<T>(e);
    return bound < largest ? largest : bound;
  }
};

// Whether a worker acts on each member of a ray rather than have the powers of one exponential, and
// a pull-back whose series takes the time of so many products.
template <class Y, class Worker>
bool acts_along(LieBlock<Y>& generators, Panel<Y>& panel, Worker& worker, const Ray& ray,
                double commutators) {
  const auto mean_bound = [&] {
    return generators.norm_bound(generators.position(ray.root()), panel) *
           typename Y::Number(ray.length() + 1) / 2;
  };
  return worker.acts(mean_bound, int(ray.count), commutators);
}

inline constexpr int kProducts = 6;  // of an exponential, at least

// Makes rotations for a worker, made from (params, panel) with
//   expect(index, products) asks for the rows of the rotation that comes within so many products
//   worker(index)           for panel.a = A
//   given(index, x)         for x = exp(kSign A), null if A is not finite
//   acts(bound, members, 0) whether act(index), with panel.a, is cheaper for a norm of at most
//                           bound; for each member of a ray of that mean norm
template <class Worker>
class LieRange {
 public:
  using Y = typename Worker::Y;
  using T = typename Y::Number;

  template <class Params>
  static Rays units(const Params&, const Lie& lie) {
    return Rays(lie);
  }
  template <class Params>
  LieRange(const Params& params, const Lie& lie)
      : lie_(lie),
        panel_(int(lie.block_size)),
        generators_(lie, panel_.shape),
        worker_(params, panel_),
        powers_(panel_) {}

  void rotate(int64_t pair, const Ray& ray) {
    generators_.select(pair / lie_.blocks, pair % lie_.blocks);
    if (ray.count > 1 && !acts_along(generators_, panel_, worker_, ray, 0)) {
      generators_.contract(generators_.position(ray.root()), panel_.a);
      worker_.expect(RotationIndex(lie_, pair, ray.root()), kProducts);
      each_power(powers_, powers_.start(Worker::kSign), ray,
                 [&](const RayMember& member, const RayMember* next, const T* x) {
                   if (next != nullptr) worker_.expect(RotationIndex(lie_, pair, next->item), 1);
                   worker_.given(RotationIndex(lie_, pair, member.item), x);
                 });
      return;
    }
    for (int64_t m = 0; m < ray.count; ++m) rotate_one(pair, ray.members[m].item);
  }

 private:
  const Lie& lie_;
  Panel<Y> panel_;
  LieBlock<Y> generators_;
  Worker worker_;
  Powers<Y> powers_;

  void rotate_one(int64_t pair, int64_t item) {
    const RotationIndex index(lie_, pair, item);
    const T* p = generators_.position(item);
    generators_.contract(p, panel_.a);
    if (worker_.acts([&] { return generators_.norm_bound(p, panel_); }, 1, 0))
      return worker_.act(index);
    worker_.expect(index, kProducts);
    worker_(index);
  }
};

// (head, block) is the outermost index: its generators stay unpacked.
template <class Range, class Params>
void each_rotation(const Params& params, const Lie& lie) {
  constexpr int64_t group = Range::Y::kGroup;
  const auto units = Range::units(params, lie);
  parallel_for(lie.heads * lie.blocks * units.count(),
               (panel_grain(lie.block_size) + group - 1) / group, [&](int64_t begin, int64_t end) {
                 Range range(params, lie);
                 for (int64_t u = begin; u < end; ++u)
                   range.rotate(u / units.count(), units[u % units.count()]);
               });
}

}  // namespace lierope::cpu::LIEROPE_ISA
