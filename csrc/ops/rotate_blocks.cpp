// rotate_blocks and its backward: tensors in, tensors out.
#include <tuple>

#include "tokens.h"

namespace lierope {

// rotations ((B,) H, M, G, b, b)
static Tokens checked(const char* op, const Tensor& q, const Tensor& k, const Tensor& rotations,
                      int64_t num_prefix_tokens) {
  check_device(op, "rotations", rotations, "q", q);
  const int64_t dim = rotations.dim();
  LIEROPE_CHECK((dim == 5 || dim == 6) && rotations.size(dim - 1) == rotations.size(dim - 2), op,
                ": rotations must have shape (H, M, G, b, b) or (B, H, M, G, b, b), got ",
                shape_of(rotations));
  const Rotation rotation{"rotations", rotations.size(dim - 5), rotations.size(dim - 4),
                          dim == 6 ? rotations.size(0) : 1};
  const Tokens shape = tokens_of(op, q, k, rotation, num_prefix_tokens);
  const int64_t blocks = rotations.size(dim - 3), b = rotations.size(dim - 1);
  LIEROPE_CHECK(b == 0 || blocks <= shape.head_dim / b, op,
                ": rotations must cover at most head_dim = ", shape.head_dim,
                " features, got G*b = ", blocks * b);
  check_compute_type(op, "rotations", rotations, shape.dtype == DType::f64);
  return shape;
}

static std::tuple<Tensor, Tensor> rotate_blocks(const Tensor& q, const Tensor& k,
                                                const Tensor& rotations, int64_t num_prefix_tokens,
                                                bool transpose) {
  const char* op = "rotate_blocks";
  RotateBlocksParams params{};
  params.shape = checked(op, q, k, rotations, num_prefix_tokens);
  TokenTensors tensors(op, q, k);
  tensors.fill(params);
  const Tensor rotations_in = contiguous(op, rotations);
  params.rotations = rotations_in.const_data_ptr();
  params.blocks = rotations.size(rotations.dim() - 3);
  params.block_size = rotations.size(rotations.dim() - 1);
  params.transpose = transpose;
  run(&Kernels::rotate_blocks, params, q);
  return {tensors.q_out, tensors.k_out};
}

static std::tuple<Tensor, Tensor, Tensor> rotate_blocks_backward(const Tensor& q_grad,
                                                                 const Tensor& k_grad,
                                                                 const Tensor& q, const Tensor& k,
                                                                 const Tensor& rotations,
                                                                 int64_t num_prefix_tokens) {
  const char* op = "rotate_blocks_backward";
  RotateBlocksBackwardParams params{};
  params.shape = checked(op, q, k, rotations, num_prefix_tokens);
  check_token_grads(op, q_grad, k_grad, q, k);
  TokenGradTensors tensors(op, q_grad, k_grad, q, k);
  tensors.fill(params);
  const Tensor rotations_in = contiguous(op, rotations);
  Tensor rotations_out = empty(op, rotations, sizes_of(rotations));
  params.rotations = rotations_in.const_data_ptr();
  params.rotations_out = rotations_out.mutable_data_ptr();
  params.blocks = rotations.size(rotations.dim() - 3);
  params.block_size = rotations.size(rotations.dim() - 1);
  run(&Kernels::rotate_blocks_backward, params, q);
  return {tensors.q_out, tensors.k_out, rotations_out};
}

}  // namespace lierope

STABLE_TORCH_LIBRARY_IMPL(lierope, LIEROPE_DISPATCH_KEY, m) {
  m.impl("rotate_blocks", TORCH_BOX(&lierope::rotate_blocks));
  m.impl("rotate_blocks_backward", TORCH_BOX(&lierope::rotate_blocks_backward));
}
