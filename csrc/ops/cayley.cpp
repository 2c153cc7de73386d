// cayley, its backward and cayley_rotate: tensors in, tensors out.
#include "device.h"

namespace lierope {

static Tensor cayley(const Tensor& s) {
  CayleyParams params{};
  check_device("cayley", "s", s);
  params.is_double = is_double("cayley", "s", s);
  params.n = square_size("cayley", "s", s, &params.count);
  const Tensor in = torch::stable::contiguous(s);
  Tensor p = empty(in, sizes_of(in));
  params.s = in.const_data_ptr();
  params.p = p.mutable_data_ptr();
  run(&Kernels::cayley, params, in);
  return p;
}

static Tensor cayley_backward(const Tensor& p, const Tensor& grad) {
  const char* op = "cayley_backward";
  CayleyBackwardParams params{};
  check_device(op, "p", p);
  params.is_double = is_double(op, "p", p);
  params.n = square_size(op, "p", p, &params.count);
  check_same_shape(op, "grad", grad, "p", p);
  const Tensor in = torch::stable::contiguous(p), grad_in = torch::stable::contiguous(grad);
  Tensor out = empty(in, sizes_of(in));
  params.p = in.const_data_ptr();
  params.grad = grad_in.const_data_ptr();
  params.out = out.mutable_data_ptr();
  run(&Kernels::cayley_backward, params, in);
  return out;
}

// Brings x to (batch, H, N, n); its leading dimensions become one.
static Tensor as_tokens(const Tensor& x) {
  const Tensor in = with_unit_last_stride(x);
  const int64_t dim = x.dim();
  if (dim == 4) return in;
  int64_t batch = 1;
  for (int64_t i = 0; i < dim - 3; ++i) batch *= x.size(i);
  return torch::stable::reshape(in, {batch, x.size(dim - 3), x.size(dim - 2), x.size(dim - 1)});
}

static Tensor cayley_rotate(const Tensor& x, const Tensor& s, int64_t bandwidth, bool transpose) {
  const char* op = "cayley_rotate";
  check_device(op, "x", x);
  check_device(op, "s", s, "x", x);
  LIEROPE_CHECK(x.dim() >= 3, op, ": x must have shape (..., H, N, n), got ", shape_of(x));
  LIEROPE_CHECK(s.dim() == 3, op, ": s must have shape (H, n, n), got ", shape_of(s));
  CayleyRotateParams params{};
  const Tensor in = as_tokens(x), s_in = torch::stable::contiguous(s);
  params.n = square_size(op, "s", s, &params.s_heads);
  params.dtype = storage_type(op, "x", x);
  check_compute_type(op, "s", s, params.dtype == DType::f64);
  LIEROPE_CHECK(in.size(3) == params.n, op, ": x must have n = ", params.n,
                " features as s has, got ", in.size(3));
  LIEROPE_CHECK(params.s_heads > 0 && in.size(1) % params.s_heads == 0, op,
                ": the heads of x must be a multiple of the heads of s, got ", in.size(1), " and ",
                params.s_heads);
  LIEROPE_CHECK(bandwidth >= 0, op, ": bandwidth must be 0 or more, got ", bandwidth);
  Tensor out = empty(x, sizes_of(x));
  params.batch = in.size(0);
  params.heads = in.size(1);
  params.tokens = in.size(2);
  params.x = view_of(in);
  params.out = out.mutable_data_ptr();
  params.s = s_in.const_data_ptr();
  params.bandwidth = bandwidth < params.n ? bandwidth : params.n - 1;
  params.transpose = transpose;
  run(&Kernels::cayley_rotate, params, in);
  return out;
}

}  // namespace lierope

STABLE_TORCH_LIBRARY_IMPL(lierope, LIEROPE_DISPATCH_KEY, m) {
  m.impl("cayley", TORCH_BOX(&lierope::cayley));
  m.impl("cayley_backward", TORCH_BOX(&lierope::cayley_backward));
  m.impl("cayley_rotate", TORCH_BOX(&lierope::cayley_rotate));
}
