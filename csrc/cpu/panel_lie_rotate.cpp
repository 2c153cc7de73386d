// lie_rotate for blocks of 9 to 128: a rotation formed in cache turns all its rows at once.
#include "panel.h"
#include "panel_act.h"
#include "panel_lie_lanes.h"
#include "panel_rows.h"

namespace lierope::cpu::LIEROPE_ISA {
namespace {

template <class Storage, class Layout>
class Turn {
 public:
  using Y = Layout;
  using T = Compute<Storage>;
  using E = typename Y::Element;
  static constexpr int kSign = -1;  // y = R x is, by rows, Y = X R^T

  Turn(const LieRotateParams& p, Panel<Y>& panel)
      : panel_(panel),
        rows_(p.shape, panel.shape),
        in_(p.shape, reads<Storage>(p.q), reads<Storage>(p.k)),
        out_(p.shape, writes<Storage>(p.shape, p.q_out, p.shape.q_heads),
             writes<Storage>(p.shape, p.k_out, p.shape.k_heads)),
        x_(rows_.kAtOnce * panel.shape.stride),
        y_(rows_.kAtOnce * panel.shape.stride),
        ahead_(2 * rows_.listed()) {}

  template <class Index>
  void expect(const Index& at, int products) {
    panel_.prefetch({ahead_, rows_.list(out_, at, rows_.list(in_, at, ahead_))}, products);
  }

  static int64_t rows(const LieRotateParams& p) { return TurnedRows(p.shape).count(); }

  template <class Index>
  void operator()(const Index& at) {
    turn(at, panel_.root(kSign, rows_.count()));
  }
  template <class Index>
  void given(const Index& at, const E* inverse) {
    turn(at, {inverse, 0});
  }

 protected:
  Panel<Y>& panel_;
  const PanelRows<Storage, Y> rows_;
  const QueriesAndKeys<const Storage> in_;
  const QueriesAndKeys<Storage> out_;
  Scratch<E> x_, y_;
  Scratch<const void*> ahead_;

 private:
  template <class Index>
  void turn(const Index& at, typename Panel<Y>::Root inverse) {
    inverse = sound(panel_, inverse);
    for (int64_t first = 0; first < rows_.count(); first += rows_.kAtOnce) {
      const int count = int(least64(rows_.kAtOnce, rows_.count() - first));
      rows_.read(in_, at, first, count, x_);
      rows_.write(panel_.turn(x_, y_, count, inverse.matrix, inverse.power()), at, first, count,
                  out_);
    }
  }
};

template <class Storage>
class TurnOrAct final : public Turn<Storage, RowLayout<Compute<Storage>>> {
 public:
  using Y = RowLayout<Compute<Storage>>;

  TurnOrAct(const LieRotateParams& p, Panel<Y>& panel)
      : Turn<Storage, Y>(p, panel), acting_(panel, this->rows_.count()) {}

  template <class Bound>
  bool acts(Bound&& bound, int members, double commutators) {
    return acting_.able() && acting_.choose(bound(), false, members, commutators);
  }
  void act(const RotationIndex& at) {
    const int count = int(this->rows_.count());
    this->rows_.read(this->in_, at, 0, count, this->x_);
    acting_.turn(this->x_, this->y_);
    this->rows_.write(this->y_, at, 0, count, this->out_);
  }

 private:
  PanelAct<Compute<Storage>> acting_;
};

template <class Storage>
void forward(const LieRotateParams& p) {
  const int64_t turned = p.lie.blocks * p.lie.block_size;
  copy_unturned<Storage>(p.shape, p.q, p.q_out, p.shape.q_heads, turned);
  copy_unturned<Storage>(p.shape, p.k, p.k_out, p.shape.k_heads, turned);
  with_layout<Compute<Storage>>(p.lie, [&](auto layout) {
    using Y = decltype(layout);
    using Worker = std::conditional_t<Y::kLanewise, Turn<Storage, Y>, TurnOrAct<Storage>>;
    each_rotation<LieRangeOf<Worker>>(p, p.lie);
  });
}

}  // namespace

void panel_lie_rotate(const LieRotateParams& p) {
  with_storage(p.shape.dtype, [&](auto storage) { forward<decltype(storage)>(p); });
}

}  // namespace lierope::cpu::LIEROPE_ISA
