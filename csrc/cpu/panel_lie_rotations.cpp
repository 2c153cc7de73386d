// lie_rotations and its adjoint for blocks of 9 to 128.
#include "panel.h"
#include "panel_lie_lanes.h"
#include "panel_packed.h"

namespace lierope::cpu::LIEROPE_ISA {
namespace {

// Where a rotation (or its gradient) lies: (samples, heads, points, blocks, n, n).
int64_t offset(const Lie& lie, int64_t sample, int64_t head, int64_t block, int64_t point) {
  const int64_t row = (sample * lie.heads + head) * lie.points + point;
  return (row * lie.blocks + block) * lie.block_size * lie.block_size;
}

// The rotations or their gradients.
template <class P>
class Rotations {
 public:
  using T = std::remove_const_t<P>;

  Rotations(const Lie& lie, P* first) : lie_(lie), first_(first) {}

  P* at(const RotationIndex& i) const {
    return first_ + offset(lie_, i.sample, i.head, i.block, i.point);
  }
  LanePlaces<P> at(const LaneIndex<T>& i) const {
    LanePlaces<P> result;
    for (int l = 0; l < kLanes<T>; ++l)
      result.place[l] =
          i.has(l) ? first_ + offset(lie_, i.sample[l], i.head, i.block, i.point[l]) : nullptr;
    return result;
  }

 private:
  const Lie& lie_;
  P* const first_;
};

template <class Layout>
class FormRotation {
 public:
  using Y = Layout;
  using T = typename Y::Number;
  using E = typename Y::Element;
  static constexpr int kSign = 1;

  FormRotation(const LieRotationsParams& params, Panel<Y>& panel)
      : rotations_(params.lie, static_cast<T*>(params.rotations)), packed_(panel) {}

  static int64_t rows(const LieRotationsParams& p) { return p.lie.block_size; }

  template <class Bound>
  bool acts(Bound&&, int, double) const {
    return false;  // the rotation itself is wanted
  }
  void act(const RotationIndex&) {}

  template <class Index>
  void expect(const Index&, int) {}
  template <class Index>
  void operator()(const Index& index) {
    packed_.write_exponential(rotations_.at(index));
  }
  template <class Index>
  void given(const Index& index, const E* rotation) {
    packed_.write(rotation, rotations_.at(index));
  }

 private:
  const Rotations<T> rotations_;
  PackedMatrices<Y> packed_;
};

template <class Layout>
class StartFromGradient {
 public:
  using Y = Layout;
  using T = typename Y::Number;
  using E = typename Y::Element;
  static constexpr int kSign = 1;

  StartFromGradient(const LieRotationsBackwardParams& params, Panel<Y>& panel)
      : gradients_(params.lie, static_cast<const T*>(params.grad)), panel_(panel), packed_(panel) {}

  static int64_t rows(const LieRotationsBackwardParams& p) { return p.lie.block_size; }
  int64_t rows() const { return panel_.shape.n; }  // R^T has that many to turn
  template <class Bound>
  bool acts(Bound&&, int, double) const {
    return false;
  }
  void act(const RotationIndex&) {}

  template <class Index>
  void expect(const Index&, int) {}
  template <class Index>
  void operator()(const Index& index, bool good) {
    if (good) given(index, panel_.inverse().matrix);
  }
  template <class Index>
  void given(const Index& index, const E* inverse) {
    if (inverse != nullptr) packed_.start_from_gradient(gradients_.at(index), inverse);
  }

 private:
  const Rotations<const T> gradients_;
  const Panel<Y>& panel_;
  PackedMatrices<Y> packed_;
};

template <class T>
void forward(const LieRotationsParams& p) {
  with_layout<T>(p.lie, [&](auto layout) {
    using Worker = FormRotation<decltype(layout)>;
    each_rotation<LieRangeOf<Worker>>(p, p.lie);
  });
}

template <class T>
void backward(const LieRotationsBackwardParams& p) {
  with_layout<T>(p.lie, [&](auto layout) {
    using Worker = StartFromGradient<decltype(layout)>;
    each_adjoint<LieAdjointRangeOf<Worker>>(p, p.lie, static_cast<T*>(p.generators_out),
                                            static_cast<T*>(p.positions_out));
  });
}

}  // namespace

void panel_lie_rotations(const LieRotationsParams& p) {
  p.lie.is_double ? forward<double>(p) : forward<float>(p);
}

void panel_lie_rotations_backward(const LieRotationsBackwardParams& p) {
  p.lie.is_double ? backward<double>(p) : backward<float>(p);
}

}  // namespace lierope::cpu::LIEROPE_ISA
