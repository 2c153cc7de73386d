// The adjoint of lie_rotate for blocks of 9 to 128, of -A from W = skew(sum of y_grad y^T).
#include "panel.h"
#include "panel_act.h"
#include "panel_lie_adjoint.h"
#include "panel_tokens.h"

namespace lierope::cpu::LIEROPE_ISA {
namespace {

template <class Storage>
class TurnBack {
 public:
  using T = Compute<Storage>;
  using Y = RowLayout<T>;
  static constexpr int kSign = -1;  // the chain is that of -A: see LieRotateBackwardParams

  TurnBack(const LieRotateBackwardParams& p, Panel<Y>& panel)
      : shape_(p.shape),
        panel_(panel),
        rows_(p.shape),
        q_(reads<Storage>(p.q_rotated)),
        k_(reads<Storage>(p.k_rotated)),
        q_grad_(reads<Storage>(p.q_grad)),
        k_grad_(reads<Storage>(p.k_grad)),
        q_out_(writes<Storage>(p.shape, p.q_out, p.shape.q_heads)),
        k_out_(writes<Storage>(p.shape, p.k_out, p.shape.k_heads)),
        acting_(panel, rows_.count()),
        y_(kTurnedAtOnce * panel.shape.stride),
        y_grad_(kTurnedAtOnce * panel.shape.stride),
        x_grad_(kTurnedAtOnce * panel.shape.stride) {}

  int64_t rows() const { return rows_.count(); }

  template <class Bound>
  bool acts(Bound&& bound, int members, double commutators) {
    return acting_.able() && acting_.choose(bound(), true, members, commutators);
  }
  void act(const RotationIndex& at) {
    const int count = int(rows());
    read(at, 0, count);
    acting_.turn_back(y_, y_grad_, x_grad_);
    write(at, 0, count, x_grad_);
  }

  // x_grad = R^T y_grad is, by rows, Y_grad R, and R = exp(-panel.a).
  void operator()(const RotationIndex& at, bool good) {
    turn_back(at, good ? panel_.inverse() : typename Panel<Y>::Root{nullptr, 0});
  }
  void given(const RotationIndex& at, const T* rotation) { turn_back(at, {rotation, 0}); }

 private:
  const Tokens& shape_;
  Panel<Y>& panel_;
  const TurnedRows rows_;
  const Rows<const Storage> q_, k_, q_grad_, k_grad_;
  const Rows<Storage> q_out_, k_out_;
  PanelAct<T> acting_;
  Scratch<T> y_, y_grad_, x_grad_;

  void turn_back(const RotationIndex& at, typename Panel<Y>::Root rotation) {
    const bool good = rotation.matrix != nullptr;
    if (!good) {
      panel_.poison(panel_.io);
      rotation = {panel_.io, 0};
    }
    for (int64_t first = 0; first < rows(); first += kTurnedAtOnce) {
      const int count = int(least64(kTurnedAtOnce, rows() - first));
      read(at, first, count);
      panel_.add_outer(y_grad_, y_, count, first == 0);
      const T* x_grad = panel_.turn(y_grad_, x_grad_, count, rotation.matrix, rotation.power());
      write(at, first, count, x_grad);
    }
    if (rows() == 0) panel_.clear(panel_.spare);
    if (good) panel_.start_from_product();
  }

  void read(const RotationIndex& at, int64_t first, int count) {
    const int n = panel_.shape.n;
    const int64_t token = shape_.prefix + at.point, feature = at.block * n;
    for (int64_t r = 0; r < count; ++r) {
      const int64_t to = r * panel_.shape.stride;
      gather(rows_.at(q_, k_, first + r, at.sample, at.head, token) + feature, y_ + to, n);
      gather(rows_.at(q_grad_, k_grad_, first + r, at.sample, at.head, token) + feature,
             y_grad_ + to, n);
    }
  }
  void write(const RotationIndex& at, int64_t first, int count, const T* x_grad) {
    const int n = panel_.shape.n;
    const int64_t token = shape_.prefix + at.point, feature = at.block * n;
    for (int64_t r = 0; r < count; ++r)
      scatter(x_grad + r * panel_.shape.stride,
              rows_.at(q_out_, k_out_, first + r, at.sample, at.head, token) + feature, n);
  }
};

template <class Storage>
void backward(const LieRotateBackwardParams& p) {
  using T = Compute<Storage>;
  const int64_t turned = p.lie.blocks * p.lie.block_size;
  copy_unturned<Storage>(p.shape, p.q_grad, p.q_out, p.shape.q_heads, turned);
  copy_unturned<Storage>(p.shape, p.k_grad, p.k_out, p.shape.k_heads, turned);
  each_adjoint<T, TurnBack<Storage>>(p, p.lie, static_cast<T*>(p.generators_out),
                                     static_cast<T*>(p.positions_out));
}

}  // namespace

void panel_lie_rotate_backward(const LieRotateBackwardParams& p) {
  with_storage(p.shape.dtype, [&](auto storage) { backward<decltype(storage)>(p); });
}

}  // namespace lierope::cpu::LIEROPE_ISA
