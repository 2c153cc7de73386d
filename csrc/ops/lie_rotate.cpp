// lie_rotate and its backward: tensors in, tensors out.
#include <tuple>

#include "lie_generators.h"
#include "tokens.h"

namespace lierope {

static Tokens checked(const char* op, const Tensor& q, const Tensor& k, const LieTensors& in,
                      int64_t num_prefix_tokens) {
  LIEROPE_CHECK(in.positions.dim() <= 3, op,
                ": positions must have shape (M, C) or (B, M, C), got ", shape_of(in.positions));
  check_device(op, "generators", in.generators, "q", q);
  const Rotation points{"positions", in.lie.heads, in.lie.points, in.lie.samples, "generators"};
  const Tokens shape = tokens_of(op, q, k, points, num_prefix_tokens);
  const int64_t b = in.lie.block_size;
  LIEROPE_CHECK(in.lie.blocks <= shape.head_dim / b, op,
                ": generators must cover at most head_dim = ", shape.head_dim,
                " features, got G*b = ", in.lie.blocks * b);
  check_compute_type(op, "generators", in.generators, shape.dtype == DType::f64);
  return shape;
}

static std::tuple<Tensor, Tensor> lie_rotate(const Tensor& q, const Tensor& k,
                                             const Tensor& generators, const Tensor& positions,
                                             int64_t num_prefix_tokens) {
  const char* op = "lie_rotate";
  LieTensors in(op, generators, positions);
  LieRotateParams params{};
  params.shape = checked(op, q, k, in, num_prefix_tokens);
  in.read(op);
  params.lie = in.lie;
  TokenTensors tensors(op, q, k);
  tensors.fill(params);
  run(&Kernels::lie_rotate, params, q);
  return {tensors.q_out, tensors.k_out};
}

static std::tuple<Tensor, Tensor, Tensor, Tensor> lie_rotate_backward(
    const Tensor& q_grad, const Tensor& k_grad, const Tensor& q, const Tensor& k,
    const Tensor& generators, const Tensor& positions, int64_t num_prefix_tokens,
    bool positions_grad) {
  const char* op = "lie_rotate_backward";
  LieTensors in(op, generators, positions);
  LieRotateBackwardParams params{};
  params.shape = checked(op, q, k, in, num_prefix_tokens);
  check_token_grads(op, q_grad, k_grad, q, k);
  in.read(op);
  params.lie = in.lie;
  TokenGradTensors tensors(op, q_grad, k_grad, q, k);
  tensors.fill(params);
  Tensor generators_out = in.generators_grad(op),
         positions_out = in.positions_grad(op, positions_grad);
  params.generators_out = generators_out.mutable_data_ptr();
  params.positions_out = positions_grad ? positions_out.mutable_data_ptr() : nullptr;
  run(&Kernels::lie_rotate_backward, params, q);
  return {tensors.q_out, tensors.k_out, generators_out, positions_out};
}

}  // namespace lierope

STABLE_TORCH_LIBRARY_IMPL(lierope, LIEROPE_DISPATCH_KEY, m) {
  m.impl("lie_rotate", TORCH_BOX(&lierope::lie_rotate));
  m.impl("lie_rotate_backward", TORCH_BOX(&lierope::lie_rotate_backward));
}
