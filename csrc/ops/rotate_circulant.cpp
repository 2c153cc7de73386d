// rotate_circulant and its backward: tensors in, tensors out.
#include <tuple>

#include "tokens.h"

namespace lierope {

// angles ((B,) H, M, G * ((block_size - 1) / 2)); sets the number of blocks.
static Tokens checked(const char* op, const Tensor& q, const Tensor& k, const Tensor& angles,
                      int64_t block_size, int64_t num_prefix_tokens, int64_t* blocks) {
  check_device(op, "angles", angles, "q", q);
  LIEROPE_CHECK(circulant_block_supported(block_size), op,
                ": block_size must be one that the "
                "library's FFT holds (lierope.ops.rotate_circulant takes every size), got ",
                block_size);
  const int64_t dim = angles.dim(), modes = (block_size - 1) / 2;
  LIEROPE_CHECK(dim == 3 || dim == 4, op,
                ": angles must have shape (H, M, G*((block_size-1)/2)) or (B, H, M, ...), got ",
                shape_of(angles));
  const Rotation rotation{"angles", angles.size(dim - 3), angles.size(dim - 2),
                          dim == 4 ? angles.size(0) : 1};
  const Tokens shape = tokens_of(op, q, k, rotation, num_prefix_tokens);
  LIEROPE_CHECK(angles.size(dim - 1) % modes == 0, op,
                ": angles must hold (block_size-1)/2 = ", modes, " angles for each block, got ",
                angles.size(dim - 1));
  *blocks = angles.size(dim - 1) / modes;
  LIEROPE_CHECK(*blocks <= shape.head_dim / block_size, op,
                ": angles must cover at most head_dim = ", shape.head_dim,
                " features, got blocks of ", block_size, " times ", *blocks);
  check_compute_type(op, "angles", angles, shape.dtype == DType::f64);
  return shape;
}

static std::tuple<Tensor, Tensor> rotate_circulant(const Tensor& q, const Tensor& k,
                                                   const Tensor& angles, int64_t block_size,
                                                   int64_t num_prefix_tokens, bool inverse) {
  const char* op = "rotate_circulant";
  RotateCirculantParams params{};
  params.shape = checked(op, q, k, angles, block_size, num_prefix_tokens, &params.blocks);
  TokenTensors tensors(op, q, k);
  tensors.fill(params);
  const Tensor angles_in = contiguous(op, angles);
  params.angles = angles_in.const_data_ptr();
  params.block_size = block_size;
  params.inverse = inverse;
  run(&Kernels::rotate_circulant, params, q);
  return {tensors.q_out, tensors.k_out};
}

static std::tuple<Tensor, Tensor, Tensor> rotate_circulant_backward(
    const Tensor& q_grad, const Tensor& k_grad, const Tensor& q, const Tensor& k,
    const Tensor& angles, int64_t block_size, int64_t num_prefix_tokens) {
  const char* op = "rotate_circulant_backward";
  RotateCirculantBackwardParams params{};
  params.shape = checked(op, q, k, angles, block_size, num_prefix_tokens, &params.blocks);
  check_token_grads(op, q_grad, k_grad, q, k);
  TokenGradTensors tensors(op, q_grad, k_grad, q, k);
  tensors.fill(params);
  const Tensor angles_in = contiguous(op, angles);
  Tensor angles_out = empty(op, angles, sizes_of(angles));
  params.angles = angles_in.const_data_ptr();
  params.angles_out = angles_out.mutable_data_ptr();
  params.block_size = block_size;
  run(&Kernels::rotate_circulant_backward, params, q);
  return {tensors.q_out, tensors.k_out, angles_out};
}

}  // namespace lierope

STABLE_TORCH_LIBRARY_IMPL(lierope, LIEROPE_DISPATCH_KEY, m) {
  m.impl("rotate_circulant", TORCH_BOX(&lierope::rotate_circulant));
  m.impl("rotate_circulant_backward", TORCH_BOX(&lierope::rotate_circulant_backward));
}
