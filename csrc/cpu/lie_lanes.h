// Generators and positions with a (head, block) pair a lane: contraction, and their gradients
// summed in a fixed order.
#pragma once
#include "../math/skew_products.h"
#include "lane_pairs.h"
#include "sums.h"

namespace lierope::cpu::LIEROPE_ISA {

template <class T, int N>
class LieLanes {
  using Order = LaneOrder<T, N>;

 public:
  static constexpr int L = kLanes<T>, M = kVectors<T, N>, size = math::kTriangle<N>;

  explicit LieLanes(const Lie& lie)
      : lie_(lie),
        each_(lie.dims * size),
        positions_(lie.dims + 1),
        generators_(M * each_ + 1),
        sum_(M * each_) {}

  // Of a group of pairs.
  void select(const PairGroup& group) {
    group_ = &group;
    const int64_t pairs = lie_.heads * lie_.blocks;
    for (int m = 0; m < group.vectors; ++m)
      for (int64_t c = 0; c < lie_.dims; ++c)
        for (int t = 0; t < size; ++t) {
          T lanes[L];
          for (int e = 0; e < L; ++e)
            lanes[Order::lane(e)] = static_cast<const T*>(
                lie_.generators)[(c * pairs + group.pair(m, e < group.count() ? e : 0)) * size + t];
          generators_[m * each_ + c * size + t] = load(lanes);
        }
    sum_.clear();
  }
  // Entries without a position sit at the origin.
  void set(const Step<T>& step) {
    for (int64_t c = 0; c < lie_.dims; ++c) {
      positions_[c] = broadcast(position(step.items[0])[c]);
      if (group_->positions == 1) continue;
      T lanes[L];
      store(lanes, positions_[c]);
      for (int e = group_->pairs; e < group_->count(); ++e) {
        const int s = group_->position(e);
        lanes[Order::lane(e)] = s < step.count ? position(step.items[s])[c] : T(0);
      }
      positions_[c] = load(lanes);
    }
  }

  // a = sum_c p_c A_c for the pairs of a vector.
  void contract(int vector, Vec<T>* a) const {
    LIEROPE_UNROLL
    for (int t = 0; t < size; ++t) a[t] = Vec<T>{};
    for (int64_t c = 0; c < lie_.dims; ++c) {
      const Vec<T>* u = generators_ + vector * each_ + c * size;
      LIEROPE_UNROLL
      for (int t = 0; t < size; ++t) a[t] += positions_[c] * u[t];
    }
  }

  // Adds what g = dL/da of a vector gives to the gradients of the generators.
  void add_gradient(int vector, const Vec<T>* g) {
    for (int64_t c = 0; c < lie_.dims; ++c) {
      Vec<T>* sums = sum_.recent() + vector * each_ + c * size;
      LIEROPE_UNROLL
      for (int t = 0; t < size; ++t) sums[t] += positions_[c] * g[t];
    }
    if (vector + 1 == group_->vectors) sum_.added();
  }
  // The gradients of the positions of this step from all vectors, g (vectors, size): out (items,
  // dims) is that of the group.
  void position_gradients(const Step<T>& step, const Vec<T>* g, T* out) const {
    for (int64_t c = 0; c < lie_.dims; ++c) {
      Vec<T> sum{};
      for (int m = 0; m < group_->vectors; ++m) {
        const Vec<T>* u = generators_ + m * each_ + c * size;
        LIEROPE_UNROLL
        for (int t = 0; t < size; ++t) sum += u[t] * g[m * size + t];
      }
      T lanes[L];
      store(lanes, sum);
      for (int s = 0; s < step.count; ++s) {
        T all = 0;
        for (int p = 0; p < group_->pairs; ++p) all += lanes[Order::lane(s * group_->pairs + p)];
        out[step.items[s] * lie_.dims + c] = all;
      }
    }
  }
  // (vectors, dims, size), a pair a lane.
  void write_generators(Vec<T>* out) {
    const Vec<T>* total = sum_.total();
    for (int64_t i = 0; i < group_->vectors * each_; ++i) out[i] = total[i];
  }

 private:
  const Lie& lie_;
  const int64_t each_;  // numbers of a pair's generators
  const PairGroup* group_ = nullptr;
  Scratch<Vec<T>> positions_, generators_;
  LongSum<Vec<T>> sum_;

  const T* position(int64_t item) const {
    return static_cast<const T*>(lie_.positions) + item * lie_.dims;
  }
};

// Gradients of every task, and their sums in the order of the tasks.
template <class T, int N>
class LieTaskGradients {
  using Order = LaneOrder<T, N>;
  static constexpr int L = kLanes<T>, M = kVectors<T, N>, size = math::kTriangle<N>;

 public:
  // positions_out may be null.
  LieTaskGradients(const Lie& lie, const LieTasks& tasks, void* generators_out, void* positions_out)
      : lie_(lie),
        tasks_(tasks),
        each_(lie.dims * size),
        items_(lie.samples * lie.points),
        generators_out_(static_cast<T*>(generators_out)),
        positions_out_(static_cast<T*>(positions_out)),
        generators_(tasks.count() * M * each_ + 1),
        positions_(positions_out ? tasks.groups().count() * items_ * lie.dims : 0) {}

  Vec<T>* generators(int64_t task) const { return generators_ + task * M * each_; }
  // Null when no gradient of the positions is wanted.
  T* positions(int64_t task) const {
    if (!positions_out_) return nullptr;
    return positions_ + task % tasks_.groups().count() * items_ * lie_.dims;
  }

  void sum() const {
    parallel_for(tasks_.groups().count(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t group = begin; group < end; ++group) sum_generators(group);
    });
    if (positions_out_)
      sum_parts(tasks_.groups().count(), items_ * lie_.dims, static_cast<const T*>(positions_),
                positions_out_);
  }

 private:
  void sum_generators(int64_t index) const {
    const PairGroup group = tasks_.groups()[index];
    const int64_t pairs = lie_.heads * lie_.blocks;
    for (int m = 0; m < group.vectors; ++m)
      for (int64_t c = 0; c < lie_.dims; ++c)
        for (int t = 0; t < size; ++t) {
          Vec<T> sum{};
          for (int64_t chunk = 0; chunk < tasks_.chunks(); ++chunk)
            sum += generators(chunk * tasks_.groups().count() + index)[m * each_ + c * size + t];
          T lanes[L];
          store(lanes, sum);
          for (int p = 0; p < group.pairs; ++p) {
            T all = 0;
            for (int e = p; e < group.count(); e += group.pairs) all += lanes[Order::lane(e)];
            generators_out_[(c * pairs + group.pair(m, p)) * size + t] = all;
          }
        }
  }

  const Lie& lie_;
  const LieTasks& tasks_;
  const int64_t each_, items_;
  T *generators_out_, *positions_out_;
  Scratch<Vec<T>> generators_;
  Scratch<T> positions_;
};

}  // namespace lierope::cpu::LIEROPE_ISA
