// rotate_pairs and its backward: tensors in, tensors out.
#include <tuple>

#include "tokens.h"

namespace lierope {

// angles ((B,) H, M, pairs)
static Tokens checked(const char* op, const Tensor& q, const Tensor& k, const Tensor& angles,
                      int64_t num_prefix_tokens) {
  check_device(op, "angles", angles, "q", q);
  const int64_t dim = angles.dim();
  LIEROPE_CHECK(dim == 3 || dim == 4, op,
                ": angles must have shape (H, M, D/2) or (B, H, M, D/2), got ", shape_of(angles));
  const Rotation rotation{"angles", angles.size(dim - 3), angles.size(dim - 2),
                          dim == 4 ? angles.size(0) : 1};
  const Tokens shape = tokens_of(op, q, k, rotation, num_prefix_tokens);
  LIEROPE_CHECK(angles.size(dim - 1) <= shape.head_dim / 2, op,
                ": angles must hold at most head_dim/2 = ", shape.head_dim / 2,
                " angles a token, got ", angles.size(dim - 1));
  check_compute_type(op, "angles", angles, shape.dtype == DType::f64);
  return shape;
}

static std::tuple<Tensor, Tensor> rotate_pairs(const Tensor& q, const Tensor& k,
                                               const Tensor& angles, int64_t num_prefix_tokens,
                                               bool interleaved, bool inverse) {
  const char* op = "rotate_pairs";
  RotatePairsParams params{};
  params.shape = checked(op, q, k, angles, num_prefix_tokens);
  TokenTensors tensors(op, q, k);
  tensors.fill(params);
  const Tensor angles_in = contiguous(op, angles);
  params.angles = angles_in.const_data_ptr();
  params.pairs = angles.size(angles.dim() - 1);
  params.interleaved = interleaved;
  params.inverse = inverse;
  run(&Kernels::rotate_pairs, params, q);
  return {tensors.q_out, tensors.k_out};
}

static std::tuple<Tensor, Tensor, Tensor> rotate_pairs_backward(
    const Tensor& q_grad, const Tensor& k_grad, const Tensor& q, const Tensor& k,
    const Tensor& angles, int64_t num_prefix_tokens, bool interleaved) {
  const char* op = "rotate_pairs_backward";
  RotatePairsBackwardParams params{};
  params.shape = checked(op, q, k, angles, num_prefix_tokens);
  check_token_grads(op, q_grad, k_grad, q, k);
  TokenGradTensors tensors(op, q_grad, k_grad, q, k);
  tensors.fill(params);
  const Tensor angles_in = contiguous(op, angles);
  Tensor angles_out = empty(op, angles, sizes_of(angles));
  params.angles = angles_in.const_data_ptr();
  params.angles_out = angles_out.mutable_data_ptr();
  params.pairs = angles.size(angles.dim() - 1);
  params.interleaved = interleaved;
  run(&Kernels::rotate_pairs_backward, params, q);
  return {tensors.q_out, tensors.k_out, angles_out};
}

}  // namespace lierope

STABLE_TORCH_LIBRARY_IMPL(lierope, LIEROPE_DISPATCH_KEY, m) {
  m.impl("rotate_pairs", TORCH_BOX(&lierope::rotate_pairs));
  m.impl("rotate_pairs_backward", TORCH_BOX(&lierope::rotate_pairs_backward));
}
