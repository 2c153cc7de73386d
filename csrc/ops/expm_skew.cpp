// expm_skew and its backward: tensors in, tensors out.
#include "device.h"

namespace lierope {

static int64_t checked_size(const char* op, const Tensor& a, int64_t* count) {
  check_device(op, "a", a);
  const int64_t n = square_size(op, "a", a, count);
  LIEROPE_CHECK(n <= kExpmSkewLargest, op, ": n must be at most ", kExpmSkewLargest,
                " (lierope.ops.expm_skew takes larger ones), got ", n);
  return n;
}

static Tensor expm_skew(const Tensor& a) {
  const char* op = "expm_skew";
  ExpmSkewParams params{};
  params.is_double = is_double(op, "a", a);
  params.n = checked_size(op, a, &params.count);
  const Tensor in = contiguous(op, a);
  Tensor r = empty(op, in, sizes_of(in));
  params.a = in.const_data_ptr();
  params.r = r.mutable_data_ptr();
  run(&Kernels::expm_skew, params, in);
  return r;
}

static Tensor expm_skew_backward(const Tensor& a, const Tensor& grad) {
  const char* op = "expm_skew_backward";
  ExpmSkewBackwardParams params{};
  params.is_double = is_double(op, "a", a);
  params.n = checked_size(op, a, &params.count);
  check_same_shape(op, "grad", grad, "a", a);
  const Tensor in = contiguous(op, a), grad_in = contiguous(op, grad);
  Tensor out = empty(op, in, sizes_of(in));
  params.a = in.const_data_ptr();
  params.grad = grad_in.const_data_ptr();
  params.out = out.mutable_data_ptr();
  run(&Kernels::expm_skew_backward, params, in);
  return out;
}

}  // namespace lierope

STABLE_TORCH_LIBRARY_IMPL(lierope, LIEROPE_DISPATCH_KEY, m) {
  m.impl("expm_skew", TORCH_BOX(&lierope::expm_skew));
  m.impl("expm_skew_backward", TORCH_BOX(&lierope::expm_skew_backward));
}
