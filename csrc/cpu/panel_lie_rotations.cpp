// lie_rotations and its adjoint for blocks of 9 to 128.
#include "panel.h"
#include "panel_lie_adjoint.h"
#include "panel_packed.h"

namespace lierope::cpu::LIEROPE_ISA {
namespace {

// Where the rotation (or its gradient) of an index lies: (samples, heads, points, blocks, n, n).
int64_t offset(const Lie& lie, const RotationIndex& at) {
  const int64_t row = (at.sample * lie.heads + at.head) * lie.points + at.point;
  return (row * lie.blocks + at.block) * lie.block_size * lie.block_size;
}

template <class T>
class FormRotation {
 public:
  static constexpr int kSign = 1;

  FormRotation(const LieRotationsParams& params, Panel<RowLayout<T>>& panel)
      : params_(params), packed_(panel) {}

  template <class Bound>
  bool acts(Bound&&, int, double) const {
    return false;  // the rotation itself is wanted
  }
  void act(const RotationIndex&) {}

  void operator()(const RotationIndex& index) { packed_.write_exponential(place(index)); }
  void given(const RotationIndex& index, const T* rotation) {
    packed_.write(rotation, place(index));
  }

 private:
  const LieRotationsParams& params_;
  PackedMatrices<T> packed_;

  T* place(const RotationIndex& index) const {
    return static_cast<T*>(params_.rotations) + offset(params_.lie, index);
  }
};

template <class T>
class StartFromGradient {
 public:
  static constexpr int kSign = 1;

  StartFromGradient(const LieRotationsBackwardParams& params, Panel<RowLayout<T>>& panel)
      : params_(params), panel_(panel), packed_(panel) {}

  int64_t rows() const { return params_.lie.block_size; }  // R^T has that many to turn
  template <class Bound>
  bool acts(Bound&&, int, double) const {
    return false;
  }
  void act(const RotationIndex&) {}

  void operator()(const RotationIndex& index, bool good) {
    if (good) given(index, panel_.inverse().matrix);
  }
  void given(const RotationIndex& index, const T* inverse) {
    if (inverse == nullptr) return;
    packed_.start_from_gradient(static_cast<const T*>(params_.grad) + offset(params_.lie, index),
                                inverse);
  }

 private:
  const LieRotationsBackwardParams& params_;
  const Panel<RowLayout<T>>& panel_;
  PackedMatrices<T> packed_;
};

template <class T>
void backward(const LieRotationsBackwardParams& p) {
  each_adjoint<T, StartFromGradient<T>>(p, p.lie, static_cast<T*>(p.generators_out),
                                        static_cast<T*>(p.positions_out));
}

}  // namespace

void panel_lie_rotations(const LieRotationsParams& p) {
  if (p.lie.is_double)
    each_rotation<double, FormRotation<double>>(p, p.lie);
  else
    each_rotation<float, FormRotation<float>>(p, p.lie);
}

void panel_lie_rotations_backward(const LieRotationsBackwardParams& p) {
  p.lie.is_double ? backward<double>(p) : backward<float>(p);
}

}  // namespace lierope::cpu::LIEROPE_ISA
