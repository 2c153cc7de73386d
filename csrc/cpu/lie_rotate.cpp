// lie_rotate and its adjoint for blocks of one matrix a lane: each rotation is made once, used for
// every row, forgotten.
#include "../kernels.h"
#include "lie_apply.h"
#include "lie_ranges.h"
#include "panel.h"

namespace lierope::cpu::LIEROPE_ISA {
namespace {

// q's or k's of a forward.
template <class Storage, int N>
class SideTurn {
 public:
  using T = Compute<Storage>;

  SideTurn(const LieRotateParams& p, const View& x, void* y, int64_t heads)
      : x_(reads<Storage>(x), p.shape, p.lie, heads),
        y_(writes<Storage>(p.shape, y, heads), p.shape, p.lie, heads) {}

  void select(const PairGroup& group) {
    x_.select(group);
    y_.select(group);
  }
  void turn(const Step<T>& step, const Step<T>& next, const Vec<T>* r) {
    x_.set(step, next);
    y_.set(step, next);
    with_filled([&](auto filled) { rotate_heads<filled, Storage, N>(r, x_, y_); }, x_.places(),
                y_.places());
    x_.copy_rest(step, y_);
  }

 private:
  LaneHeads<const Storage, N> x_;
  LaneHeads<Storage, N> y_;
};

// q's or k's of a backward.
template <class Storage, int N>
class SideTurnBack {
 public:
  using T = Compute<Storage>;

  SideTurnBack(const LieRotateBackwardParams& p, const View& y, const View& y_grad, void* x_grad,
               int64_t heads)
      : y_(reads<Storage>(y), p.shape, p.lie, heads),
        y_grad_(reads<Storage>(y_grad), p.shape, p.lie, heads),
        x_grad_(writes<Storage>(p.shape, x_grad, heads), p.shape, p.lie, heads) {}

  void select(const PairGroup& group) {
    y_.select(group);
    y_grad_.select(group);
    x_grad_.select(group);
  }
  void turn(const Step<T>& step, const Step<T>& next, const Vec<T>* r, Vec<T>* w) {
    y_.set(step, next);
    y_grad_.set(step, next);
    x_grad_.set(step, next);
    with_filled(
        [&](auto filled) { rotate_heads_back<filled, Storage, N>(r, y_, y_grad_, x_grad_, w); },
        y_.places(), y_grad_.places(), x_grad_.places());
    y_grad_.copy_rest(step, x_grad_);
  }

 private:
  LaneHeads<const Storage, N> y_, y_grad_;
  LaneHeads<Storage, N> x_grad_;
};

// Both.
template <class Side>
class TurnHeads {
  using T = typename Side::T;

 public:
  static constexpr int kSign = -1;  // of a backward: see LieRotateBackwardParams

  explicit TurnHeads(const LieRotateParams& p)
      : q_(p, p.q, p.q_out, p.shape.q_heads), k_(p, p.k, p.k_out, p.shape.k_heads) {}
  explicit TurnHeads(const LieRotateBackwardParams& p)
      : q_(p, p.q_rotated, p.q_grad, p.q_out, p.shape.q_heads),
        k_(p, p.k_rotated, p.k_grad, p.k_out, p.shape.k_heads) {}

  void select(const PairGroup& group) {
    q_.select(group);
    k_.select(group);
  }
  template <class... W>
  void operator()(const Step<T>& step, const Step<T>& next, const Vec<T>* r, W*... w) {
    q_.turn(step, next, r, w...);
    k_.turn(step, next, r, w...);
  }

 private:
  Side q_, k_;
};

// Copies the prefix tokens from q and k (of y, the gradients), for what is past the blocks of a
// turned row is copied with it. Calls f with the storage type and the block size as constants.
template <class Params, class F>
void with_prefix_copied(const Params& p, const View& q, const View& k, F&& f) {
  with_storage(p.shape.dtype, [&](auto storage) {
    using Storage = decltype(storage);
    copy_unturned<Storage>(p.shape, q, p.q_out, p.shape.q_heads, p.shape.head_dim);
    copy_unturned<Storage>(p.shape, k, p.k_out, p.shape.k_heads, p.shape.head_dim);
    with_size<kLanesLargest>(p.lie.block_size, [&](auto n) { f(storage, n); });
  });
}

}  // namespace

void lie_rotate(const LieRotateParams& p) {
  if (p.lie.block_size > kLanesLargest) return panel_lie_rotate(p);
  with_prefix_copied(p, p.q, p.k, [&](auto storage, auto n) {
    using Side = SideTurn<decltype(storage), n>;
    each_lane_rotation<typename Side::T, n, TurnHeads<Side>>(p, p.lie);
  });
}

void lie_rotate_backward(const LieRotateBackwardParams& p) {
  if (p.lie.block_size > kLanesLargest) return panel_lie_rotate_backward(p);
  with_prefix_copied(p, p.q_grad, p.k_grad, [&](auto storage, auto n) {
    using Side = SideTurnBack<decltype(storage), n>;
    each_lane_adjoint<typename Side::T, n, TurnHeads<Side>>(p, p.lie);
  });
}

}  // namespace lierope::cpu::LIEROPE_ISA
