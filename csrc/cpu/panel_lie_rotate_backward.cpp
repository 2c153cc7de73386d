// The adjoint of lie_rotate for blocks of 9 to 128, of -A from W = skew(sum of y_grad y^T).
#include "panel.h"
#include "panel_act.h"
#include "panel_lie_lanes.h"
#include "panel_rows.h"

namespace lierope::cpu::LIEROPE_ISA {
namespace {

template <class Storage, class Layout>
class TurnBack {
 public:
  using Y = Layout;
  using T = Compute<Storage>;
  using E = typename Y::Element;
  static constexpr int kSign = -1;  // the chain is that of -A: see LieRotateBackwardParams

  TurnBack(const LieRotateBackwardParams& p, Panel<Y>& panel)
      : panel_(panel),
        rows_(p.shape, panel.shape),
        rotated_(p.shape, reads<Storage>(p.q_rotated), reads<Storage>(p.k_rotated)),
        grad_(p.shape, reads<Storage>(p.q_grad), reads<Storage>(p.k_grad)),
        out_(p.shape, writes<Storage>(p.shape, p.q_out, p.shape.q_heads),
             writes<Storage>(p.shape, p.k_out, p.shape.k_heads)),
        y_(rows_.kAtOnce * panel.shape.stride),
        y_grad_(rows_.kAtOnce * panel.shape.stride),
        x_grad_(rows_.kAtOnce * panel.shape.stride),
        ahead_(3 * rows_.listed()) {}

  template <class Index>
  void expect(const Index& at, int products) {
    const void** end = rows_.list(grad_, at, rows_.list(rotated_, at, ahead_));
    panel_.prefetch({ahead_, rows_.list(out_, at, end)}, products);
  }

  static int64_t rows(const LieRotateBackwardParams& p) { return TurnedRows(p.shape).count(); }
  int64_t rows() const { return rows_.count(); }

  // x_grad = R^T y_grad is, by rows, Y_grad R, and R = exp(-panel.a).
  template <class Index>
  void operator()(const Index& at, bool good) {
    turn_back(at, good ? panel_.inverse() : typename Panel<Y>::Root{nullptr, 0});
  }
  template <class Index>
  void given(const Index& at, const E* rotation) {
    turn_back(at, {rotation, 0});
  }

 protected:
  Panel<Y>& panel_;
  const PanelRows<Storage, Y> rows_;
  const QueriesAndKeys<const Storage> rotated_, grad_;
  const QueriesAndKeys<Storage> out_;
  Scratch<E> y_, y_grad_, x_grad_;
  Scratch<const void*> ahead_;

 private:
  template <class Index>
  void turn_back(const Index& at, typename Panel<Y>::Root rotation) {
    const bool good = rotation.matrix != nullptr;
    rotation = sound(panel_, rotation);
    for (int64_t first = 0; first < rows(); first += rows_.kAtOnce) {
      const int count = int(least64(rows_.kAtOnce, rows() - first));
      rows_.read(rotated_, at, first, count, y_);
      rows_.read(grad_, at, first, count, y_grad_);
      panel_.add_outer(y_grad_, y_, count, first == 0);
      const E* x_grad = panel_.turn(y_grad_, x_grad_, count, rotation.matrix, rotation.power());
      rows_.write(x_grad, at, first, count, out_);
    }
    if (rows() == 0) panel_.clear(panel_.spare);
    if (good) panel_.start_from_product();
  }
};

template <class Storage>
class TurnBackOrAct final : public TurnBack<Storage, RowLayout<Compute<Storage>>> {
 public:
  using Y = RowLayout<Compute<Storage>>;

  TurnBackOrAct(const LieRotateBackwardParams& p, Panel<Y>& panel)
      : TurnBack<Storage, Y>(p, panel), acting_(panel, this->rows()) {}

  template <class Bound>
  bool acts(Bound&& bound, int members, double commutators) {
    return acting_.able() && acting_.choose(bound(), true, members, commutators);
  }
  void act(const RotationIndex& at) {
    const int count = int(this->rows());
    this->rows_.read(this->rotated_, at, 0, count, this->y_);
    this->rows_.read(this->grad_, at, 0, count, this->y_grad_);
    acting_.turn_back(this->y_, this->y_grad_, this->x_grad_);
    this->rows_.write(this->x_grad_, at, 0, count, this->out_);
  }

 private:
  PanelAct<Compute<Storage>> acting_;
};

template <class Storage>
void backward(const LieRotateBackwardParams& p) {
  using T = Compute<Storage>;
  const int64_t turned = p.lie.blocks * p.lie.block_size;
  copy_unturned<Storage>(p.shape, p.q_grad, p.q_out, p.shape.q_heads, turned);
  copy_unturned<Storage>(p.shape, p.k_grad, p.k_out, p.shape.k_heads, turned);
  with_layout<T>(p.lie, [&](auto layout) {
    using Y = decltype(layout);
    using Worker = std::conditional_t<Y::kLanewise, TurnBack<Storage, Y>, TurnBackOrAct<Storage>>;
    each_adjoint<LieAdjointRangeOf<Worker>>(p, p.lie, static_cast<T*>(p.generators_out),
                                            static_cast<T*>(p.positions_out));
  });
}

}  // namespace

void panel_lie_rotate_backward(const LieRotateBackwardParams& p) {
  with_storage(p.shape.dtype, [&](auto storage) { backward<decltype(storage)>(p); });
}

}  // namespace lierope::cpu::LIEROPE_ISA
