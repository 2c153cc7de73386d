// lie_rotate for blocks of 9 to 128: a rotation formed in cache turns all its rows at once.
#include "panel.h"
#include "panel_act.h"
#include "panel_lie.h"
#include "panel_tokens.h"

namespace lierope::cpu::LIEROPE_ISA {
namespace {

template <class Storage>
class Turn {
 public:
  using T = Compute<Storage>;
  using Y = RowLayout<T>;
  static constexpr int kSign = -1;  // y = R x is, by rows, Y = X R^T

  Turn(const LieRotateParams& p, Panel<Y>& panel)
      : shape_(p.shape),
        panel_(panel),
        rows_(p.shape),
        q_(reads<Storage>(p.q)),
        k_(reads<Storage>(p.k)),
        q_out_(writes<Storage>(p.shape, p.q_out, p.shape.q_heads)),
        k_out_(writes<Storage>(p.shape, p.k_out, p.shape.k_heads)),
        acting_(panel, rows_.count()),
        x_(kTurnedAtOnce * panel.shape.stride),
        y_(kTurnedAtOnce * panel.shape.stride) {}

  template <class Bound>
  bool acts(Bound&& bound, int members, double commutators) {
    return acting_.able() && acting_.choose(bound(), false, members, commutators);
  }
  void act(const RotationIndex& at) {
    const int count = int(rows_.count());
    read(at, 0, count);
    acting_.turn(x_, y_);
    write(at, 0, count, y_);
  }

  void operator()(const RotationIndex& at) { turn(at, panel_.root(kSign, rows_.count())); }
  void given(const RotationIndex& at, const T* inverse) { turn(at, {inverse, 0}); }

 private:
  const Tokens& shape_;
  Panel<Y>& panel_;
  const TurnedRows rows_;
  const Rows<const Storage> q_, k_;
  const Rows<Storage> q_out_, k_out_;
  PanelAct<T> acting_;
  Scratch<T> x_, y_;

  void turn(const RotationIndex& at, typename Panel<Y>::Root inverse) {
    if (inverse.matrix == nullptr) {
      panel_.poison(panel_.io);
      inverse = {panel_.io, 0};
    }
    for (int64_t first = 0; first < rows_.count(); first += kTurnedAtOnce) {
      const int count = int(least64(kTurnedAtOnce, rows_.count() - first));
      read(at, first, count);
      write(at, first, count, panel_.turn(x_, y_, count, inverse.matrix, inverse.power()));
    }
  }
  void read(const RotationIndex& at, int64_t first, int count) {
    const int64_t n = panel_.shape.n, token = shape_.prefix + at.point, feature = at.block * n;
    for (int r = 0; r < count; ++r)
      gather(rows_.at(q_, k_, first + r, at.sample, at.head, token) + feature,
             x_ + r * panel_.shape.stride, int(n));
  }
  void write(const RotationIndex& at, int64_t first, int count, const T* y) {
    const int64_t n = panel_.shape.n, token = shape_.prefix + at.point, feature = at.block * n;
    for (int r = 0; r < count; ++r)
      scatter(y + r * panel_.shape.stride,
              rows_.at(q_out_, k_out_, first + r, at.sample, at.head, token) + feature, int(n));
  }
};

template <class Storage>
void forward(const LieRotateParams& p) {
  const int64_t turned = p.lie.blocks * p.lie.block_size;
  copy_unturned<Storage>(p.shape, p.q, p.q_out, p.shape.q_heads, turned);
  copy_unturned<Storage>(p.shape, p.k, p.k_out, p.shape.k_heads, turned);
  each_rotation<Compute<Storage>, Turn<Storage>>(p, p.lie);
}

}  // namespace

void panel_lie_rotate(const LieRotateParams& p) {
  with_storage(p.shape.dtype, [&](auto storage) { forward<decltype(storage)>(p); });
}

}  // namespace lierope::cpu::LIEROPE_ISA
