// lie_rotations and its adjoint for blocks of one matrix a lane: no A in memory.
#include "../kernels.h"
#include "lane_places.h"
#include "lie_ranges.h"
#include "panel.h"

namespace lierope::cpu::LIEROPE_ISA {
namespace {

// The rotations of the pairs in the lanes, or their gradients: (samples, heads, points, blocks, N,
// N).
template <class S, int N>
class LaneRotations {
 public:
  LaneRotations(S* rotations, const Lie& lie)
      : lie_(lie),
        places(rotations, lie, lie.heads * lie.points * lie.blocks * N * N, lie.blocks * N * N) {}

  void select(const PairGroup& group) {
    places.select(group, 0, [&](int64_t pair) {
      return (pair / lie_.blocks * lie_.points * lie_.blocks + pair % lie_.blocks) * N * N;
    });
  }

 private:
  const Lie& lie_;

 public:
  LanePlaces<S, N, N * N> places;
};

template <class T, int N>
class FormRotations {
 public:
  explicit FormRotations(const LieRotationsParams& p)
      : rotations_(static_cast<T*>(p.rotations), p.lie) {}

  void select(const PairGroup& group) {
    vectors_ = group.vectors;
    rotations_.select(group);
  }
  void operator()(const Step<T>& step, const Step<T>& next, const Vec<T>* r) {
    rotations_.places.set(step, next);
    for (int m = 0; m < vectors_; ++m, r += N * N) {
      if constexpr (math::kLessIdentity<N>) {
        Vec<T> whole[N * N];
        math::add_identity<N>(r, whole);
        rotations_.places.template store<false>(m, 0, whole);
      } else {
        rotations_.places.template store<false>(m, 0, r);
      }
    }
  }

 private:
  int vectors_ = 0;
  LaneRotations<T, N> rotations_;
};

template <class T, int N>
class PullBackGradients {
 public:
  static constexpr int kSign = 1;

  explicit PullBackGradients(const LieRotationsBackwardParams& p)
      : gradients_(static_cast<const T*>(p.grad), p.lie) {}

  void select(const PairGroup& group) {
    vectors_ = group.vectors;
    gradients_.select(group);
  }
  void operator()(const Step<T>& step, const Step<T>& next, const Vec<T>* r, Vec<T>* w) {
    constexpr int size = math::kTriangle<N>;
    gradients_.places.set(step, next);
    for (int m = 0; m < vectors_; ++m) {
      Vec<T> grad[N * N], one[size + 1];
      gradients_.places.template load<false>(m, 0, grad);
      lane_pull_back<T, N>(r + m * N * N, grad, one);
      for (int t = 0; t < size; ++t) w[m * size + t] += one[t];
    }
  }

 private:
  int vectors_ = 0;
  LaneRotations<const T, N> gradients_;
};

template <class T, int N>
void forward(const LieRotationsParams& p) {
  each_lane_rotation<T, N, FormRotations<T, N>>(p, p.lie);
}
template <class T, int N>
void backward(const LieRotationsBackwardParams& p) {
  each_lane_adjoint<T, N, PullBackGradients<T, N>>(p, p.lie);
}

}  // namespace

void lie_rotations(const LieRotationsParams& p) {
  if (p.lie.block_size > kLanesLargest) return panel_lie_rotations(p);
  with_size<kLanesLargest>(p.lie.block_size, [&](auto n) {
    p.lie.is_double ? forward<double, n>(p) : forward<float, n>(p);
  });
}

void lie_rotations_backward(const LieRotationsBackwardParams& p) {
  if (p.lie.block_size > kLanesLargest) return panel_lie_rotations_backward(p);
  with_size<kLanesLargest>(p.lie.block_size, [&](auto n) {
    p.lie.is_double ? backward<double, n>(p) : backward<float, n>(p);
  });
}

}  // namespace lierope::cpu::LIEROPE_ISA
