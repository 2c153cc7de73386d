// lie_rotations and its backward: tensors in, tensors out.
#include <tuple>

#include "lie_generators.h"

namespace lierope {

// (..., H, M, G, b, b)
static std::vector<int64_t> rotations_shape(const LieTensors& in) {
  std::vector<int64_t> sizes = sizes_of(in.positions);
  sizes.resize(sizes.size() - 2);
  const Lie& lie = in.lie;
  sizes.insert(sizes.end(), {lie.heads, lie.points, lie.blocks, lie.block_size, lie.block_size});
  return sizes;
}

static Tensor lie_rotations(const Tensor& generators, const Tensor& positions) {
  const char* op = "lie_rotations";
  LieTensors in(op, generators, positions);
  in.read(op);
  Tensor rotations = empty(op, generators, rotations_shape(in));
  run(&Kernels::lie_rotations, {in.lie, rotations.mutable_data_ptr()}, in.generators);
  return rotations;
}

static std::tuple<Tensor, Tensor> lie_rotations_backward(const Tensor& generators,
                                                         const Tensor& positions,
                                                         const Tensor& grad, bool positions_grad) {
  const char* op = "lie_rotations_backward";
  LieTensors in(op, generators, positions);
  LIEROPE_CHECK(sizes_of(grad) == rotations_shape(in), op,
                ": grad must have the shape of the rotations, got ", shape_of(grad));
  check_device(op, "grad", grad, "generators", generators);
  check_compute_type(op, "grad", grad, in.lie.is_double);
  in.read(op);
  const Tensor grad_in = contiguous(op, grad);
  Tensor generators_out = in.generators_grad(op),
         positions_out = in.positions_grad(op, positions_grad);
  run(&Kernels::lie_rotations_backward,
      {in.lie, grad_in.const_data_ptr(), generators_out.mutable_data_ptr(),
       positions_grad ? positions_out.mutable_data_ptr() : nullptr},
      in.generators);
  return {generators_out, positions_out};
}

}  // namespace lierope

STABLE_TORCH_LIBRARY_IMPL(lierope, LIEROPE_DISPATCH_KEY, m) {
  m.impl("lie_rotations", TORCH_BOX(&lierope::lie_rotations));
  m.impl("lie_rotations_backward", TORCH_BOX(&lierope::lie_rotations_backward));
}
