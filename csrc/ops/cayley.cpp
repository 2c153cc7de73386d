// cayley, its backward and cayley_rotate: tensors in, tensors out.
#include "device.h"

namespace lierope {

static Tensor cayley(const Tensor& s) {
  const char* op = "cayley";
  CayleyParams params{};
  check_device(op, "s", s);
  params.is_double = is_double(op, "s", s);
  params.n = square_size(op, "s", s, &params.count);
  const Tensor in = contiguous(op, s);
  Tensor p = empty(op, in, sizes_of(in));
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
  const Tensor in = contiguous(op, p), grad_in = contiguous(op, grad);
  Tensor out = empty(op, in, sizes_of(in));
  params.p = in.const_data_ptr();
  params.grad = grad_in.const_data_ptr();
  params.out = out.mutable_data_ptr();
  run(&Kernels::cayley_backward, params, in);
  return out;
}

// Brings x to (batch, H, N, n); its leading dimensions become one.
static Tensor as_tokens(const char* op, const Tensor& x, int64_t batch) {
  const Tensor in = with_unit_last_stride(op, x);
  const int64_t dim = x.dim();
  if (dim == 4) return in;
  return torch::stable::reshape(in, {batch, x.size(dim - 3), x.size(dim - 2), x.size(dim - 1)});
}

static Tensor cayley_rotate(const Tensor& x, const Tensor& s, int64_t bandwidth, bool transpose) {
  const char* op = "cayley_rotate";
  check_device(op, "x", x);
  check_device(op, "s", s, "x", x);
  LIEROPE_CHECK(x.dim() >= 3, op, ": x must have shape (..., H, N, n), got ", shape_of(x));
  LIEROPE_CHECK(s.dim() == 3, op, ": s must have shape (H, n, n), got ", shape_of(s));
  CayleyRotateParams params{};
  const int64_t dim = x.dim(), heads = x.size(dim - 3), n = x.size(dim - 1);
  params.n = square_size(op, "s", s, &params.s_heads);
  params.dtype = storage_type(op, "x", x);
  check_compute_type(op, "s", s, params.dtype == DType::f64);
  LIEROPE_CHECK(n == params.n, op, ": x must have n = ", params.n, " features as s has, got ", n);
  LIEROPE_CHECK(params.s_heads > 0 && heads % params.s_heads == 0, op,
                ": the heads of x must be a multiple of the heads of s, got ", heads, " and ",
                params.s_heads);
  LIEROPE_CHECK(bandwidth >= 0, op, ": bandwidth must be 0 or more, got ", bandwidth);
  params.batch = product_of(x, dim - 3);
  params.heads = heads;
  params.tokens = x.size(dim - 2);
  const Tensor in = as_tokens(op, x, params.batch), s_in = contiguous(op, s);
  Tensor out = empty(op, x, sizes_of(x));
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
