// Loops over the rotations of generators and positions with a ray of positions in each lane.
#pragma once
#include "panel_lanes.h"
#include "panel_lie_adjoint.h"

namespace lierope::cpu::LIEROPE_ISA {

// Calls f with the faster layout for the rotations. A group of lanes, be it full or not, costs as
// much as this many matrices by rows, on a Zen 4: forward 6 of sides up to 12, 8 of 13, 11 of 16;
// backward 6, 12, 14.
template <class T, class F>
void with_layout(const Lie& lie, F&& f) {
  const int64_t items = lie.samples * lie.points, groups = (items + kLanes<T> - 1) / kLanes<T>;
  if (items >= groups * (lie.block_size > 12 ? 12 : 6)) return with_layout<T>(lie.block_size, f);
  f(RowLayout<T>{});
}

// As many rays as lanes, the longest first; lanes past `count` have none.
template <class T>
struct RayGroup {
  Ray rays[kLanes<T>];
  int count = 0;

  int64_t length() const { return rays[0].length(); }
  bool single() const {  // a position a lane
    for (int l = 0; l < count; ++l)
      if (rays[l].count > 1) return false;
    return true;
  }
};

// f(multiple, index) for the members of all lanes, upwards: those that share a multiple at once.
template <class T, class F>
void each_multiple(const Lie& lie, int64_t pair, const RayGroup<T>& group, F&& f) {
  int64_t next[kLanes<T>] = {};
  for (int64_t multiple = 1; multiple <= group.length();) {
    LaneIndex<T> index(lie, pair);
    bool any = false;
    for (int l = 0; l < group.count; ++l) {
      const Ray& ray = group.rays[l];
      if (next[l] == ray.count || ray.members[next[l]].multiple != multiple) continue;
      index.set(lie, l, ray.members[next[l]++].item);
      any = true;
    }
    if (any)
      f(multiple, index);  // and once more: positions may repeat
    else
      ++multiple;
  }
}

// Turning by a multiple costs as much for the few lanes that have a member there as for all. So
// rays are kept short, and where they would cost more than they save each position is by itself.
template <class T>
class RayGroups {
 public:
  RayGroups(const Lie& lie, bool together, int64_t rows)
      : together_(lie, together ? kLongest : 0, RayOrder::longest_first),
        single_(lie, 0),
        pay_(pay(lie, rows)) {}

  int64_t count() const { return groups_of(rays()); }
  int64_t longest() const { return rays().longest(); }
  RayGroup<T> operator[](int64_t group) const { return group_of(rays(), group); }

 private:
  static constexpr int64_t kLongest = 4;
  const Rays together_, single_;
  const bool pay_;

  const Rays& rays() const { return pay_ ? together_ : single_; }
  static int64_t groups_of(const Rays& rays) { return (rays.count() + kLanes<T> - 1) / kLanes<T>; }
  static RayGroup<T> group_of(const Rays& rays, int64_t group) {
    RayGroup<T> result;
    const int64_t first = group * kLanes<T>;
    result.count = int(least64(rays.count() - first, kLanes<T>));
    for (int l = 0; l < result.count; ++l) result.rays[l] = rays[first + l];
    return result;
  }

  // In units of what a row costs: 0.25 microseconds on a Zen 4 forward, thrice that backward.
  bool pay(const Lie& lie, int64_t rows) const {
    constexpr int64_t exponential = 48, step = 12;
    int64_t steps = 0, turns = 0;
    for (int64_t g = 0; g < groups_of(together_); ++g) {
      const RayGroup<T> group = group_of(together_, g);
      steps += group.length() - 1;
      each_multiple(lie, 0, group, [&](int64_t, const LaneIndex<T>&) { ++turns; });
    }
    return groups_of(together_) * exponential + steps * step + turns * rows <
           groups_of(single_) * (exponential + rows);
  }
};

// f(multiple, index, R^multiple) for each of each_multiple().
template <class T, class Worker, class F>
void each_power(Powers<LaneLayout<T>>& powers, const Lie& lie, int64_t pair,
                const RayGroup<T>& group, Worker& worker, F&& f) {
  int64_t power = 1;
  each_multiple(lie, pair, group, [&](int64_t multiple, const LaneIndex<T>& index) {
    if (power < multiple) worker.expect(index, int(multiple - power));
    for (; power < multiple; ++power) powers.advance();
    f(multiple, index, powers.current());
  });
}

// What LieRange and LieAdjointRange share here: panel.a of the roots.
template <class T>
class LaneRoots {
 public:
  using Y = LaneLayout<T>;

  LaneRoots(const Lie& lie, Panel<Y>& panel)
      : lie_(lie), panel_(panel), generators_(lie, panel.shape), positions_(lie.dims) {}

  // a = sign sum_c p_c A_c; lanes without a root sit at the origin.
  template <int sign>
  LaneIndex<T> contract(int64_t pair, const RayGroup<T>& group) {
    generators_.select(pair / lie_.blocks, pair % lie_.blocks);
    LaneIndex<T> index(lie_, pair);
    for (int64_t c = 0; c < lie_.dims; ++c) positions_[c] = Vec<T>{};
    for (int l = 0; l < group.count; ++l) {
      const int64_t item = group.rays[l].root();
      index.set(lie_, l, item);
      for (int64_t c = 0; c < lie_.dims; ++c) positions_[c][l] = generators_.position(item)[c];
    }
    generators_.template contract<sign>(positions_, panel_.a);
    return index;
  }
  const LieBlock<Y>& generators() const { return generators_; }
  const Vec<T>* positions() const { return positions_; }

 private:
  const Lie& lie_;
  Panel<Y>& panel_;
  LieBlock<Y> generators_;
  Scratch<Vec<T>> positions_;
};

// See LieRange; the worker takes a LaneIndex, and x holds NaN where A is not finite.
template <class Worker>
class LieLaneRange {
 public:
  using Y = typename Worker::Y;
  using T = typename Y::Number;

  template <class Params>
  static RayGroups<T> units(const Params& params, const Lie& lie) {
    return RayGroups<T>(lie, true, Worker::rows(params));
  }
  template <class Params>
  LieLaneRange(const Params& params, const Lie& lie)
      : lie_(lie),
        panel_(int(lie.block_size)),
        roots_(lie, panel_),
        worker_(params, panel_),
        powers_(panel_) {}

  void rotate(int64_t pair, const RayGroup<T>& group) {
    const LaneIndex<T> roots = roots_.template contract<1>(pair, group);
    worker_.expect(roots, kProducts);
    if (group.single()) return worker_(roots);
    powers_.start(Worker::kSign);
    each_power(
        powers_, lie_, pair, group, worker_,
        [&](int64_t, const LaneIndex<T>& index, const Vec<T>* x) { worker_.given(index, x); });
  }

 private:
  const Lie& lie_;
  Panel<Y> panel_;
  LaneRoots<T> roots_;
  Worker worker_;
  Powers<Y> powers_;
};

// See LieAdjointRange.
template <class Worker>
class LieLaneAdjointRange {
 public:
  using Y = typename Worker::Y;
  using T = typename Y::Number;
  using Units = RayGroups<T>;
  static constexpr int kSign = Worker::kSign;
  static constexpr bool kMoments = false;  // of so small matrices they cost as much as the series
  static constexpr int64_t kLeastUnits = 1;

  template <class Params>
  static Units units(const Params& params, const Lie& lie, bool together) {
    return Units(lie, together, Worker::rows(params));
  }
  template <class Params>
  LieLaneAdjointRange(const Params& params, const Lie& lie, const Units& groups,
                      const MomentsPlan<T>&)
      : lie_(lie),
        panel_(int(lie.block_size)),
        roots_(lie, panel_),
        worker_(params, panel_),
        powers_(panel_),
        sums_(panel_, groups.longest()),
        by_lane_(lie.dims) {}

  bool adjoint(int64_t pair, const Units& groups, int64_t first, int64_t last, T* packed,
               T* positions, T*) {
    LieGradients<Y> gradients(lie_, panel_.shape);
    for (int64_t g = first; g < last; ++g) {
      const RayGroup<T> group = groups[g];
      const LaneIndex<T> roots = roots_.template contract<Worker::kSign>(pair, group);
      worker_.expect(roots, kProducts);
      if (group.single())
        pull_back_one(roots);
      else
        pull_back_rays(pair, group);
      panel_.clear_padding(panel_.z);
      panel_.poison(panel_.z);
      gradients.add(roots_.generators(), roots_.positions(), panel_.z,
                    positions == nullptr ? nullptr : static_cast<Vec<T>*>(by_lane_));
      if (positions == nullptr) continue;
      for (int l = 0; l < group.count; ++l)
        for (int64_t c = 0; c < lie_.dims; ++c)
          positions[group.rays[l].root() * lie_.dims + c] = by_lane_[c][l];
    }
    gradients.write(packed);
    return false;
  }

 private:
  const Lie& lie_;
  Panel<Y> panel_;
  LaneRoots<T> roots_;
  Worker worker_;
  Powers<Y> powers_;
  RaySums<Y> sums_;
  Scratch<Vec<T>> by_lane_;  // gradients of positions

  void pull_back_one(const LaneIndex<T>& index) {
    panel_.chain(worker_.rows());
    worker_(index, true);
    panel_.pull_back();
  }
  void pull_back_rays(int64_t pair, const RayGroup<T>& group) {
    powers_.start_with_chain();
    sums_.clear();
    each_power(powers_, lie_, pair, group, worker_,
               [&](int64_t multiple, const LaneIndex<T>& index, const Vec<T>* inverse) {
                 worker_.given(index, inverse);
                 sums_.keep(multiple);
               });
    sums_.collect(group.length());
    panel_.pull_back();
  }
};

template <class Worker>
using LieRangeOf = std::conditional_t<Worker::Y::kLanewise, LieLaneRange<Worker>, LieRange<Worker>>;
template <class Worker>
using LieAdjointRangeOf =
    std::conditional_t<Worker::Y::kLanewise, LieLaneAdjointRange<Worker>, LieAdjointRange<Worker>>;

}  // namespace lierope::cpu::LIEROPE_ISA
