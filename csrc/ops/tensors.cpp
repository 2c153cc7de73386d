// Reading tensors for the kernels.
#include "tensors.h"

#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include "../pages.h"
#include "device.h"

#if defined(LIEROPE_EMULATED)
#include <cstring>
#endif

namespace lierope {

std::vector<int64_t> sizes_of(const Tensor& t) {
  std::vector<int64_t> sizes(static_cast<size_t>(t.dim()));
  for (size_t i = 0; i < sizes.size(); ++i) sizes[i] = t.size(static_cast<int64_t>(i));
  return sizes;
}

static std::string shape_text(const std::vector<int64_t>& sizes) {
  std::string text = "(";
  for (size_t i = 0; i < sizes.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(sizes[i]);
  return text + (sizes.size() == 1 ? ",)" : ")");
}

std::string shape_of(const Tensor& t) { return shape_text(sizes_of(t)); }

std::string type_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Float: return "float32";
    case ScalarType::Double: return "float64";
    case ScalarType::BFloat16: return "bfloat16";
    case ScalarType::Half: return "float16";
    case ScalarType::Long: return "int64";
    case ScalarType::Int: return "int32";
    case ScalarType::Bool: return "bool";
    case ScalarType::ComplexFloat: return "complex64";
    case ScalarType::ComplexDouble: return "complex128";
    default: return "another dtype";
  }
}

DType storage_type(const char* op, const char* argument, const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Float: return DType::f32;
    case ScalarType::Double: return DType::f64;
    case ScalarType::BFloat16: return DType::bf16;
    case ScalarType::Half: return DType::f16;
    default:
      fail(op, ": ", argument, " must be float32, float64, bfloat16 or float16, got ", type_of(t));
  }
}

void check_compute_type(const char* op, const char* argument, const Tensor& t, bool is_double) {
  const ScalarType wanted = is_double ? ScalarType::Double : ScalarType::Float;
  LIEROPE_CHECK(t.scalar_type() == wanted, op, ": ", argument, " must be ",
                is_double ? "float64 as q is" : "float32 unless q is float64", ", got ",
                type_of(t));
}

bool is_double(const char* op, const char* argument, const Tensor& t) {
  const bool is_f64 = t.scalar_type() == ScalarType::Double;
  LIEROPE_CHECK(is_f64 || t.scalar_type() == ScalarType::Float, op, ": ", argument,
                " must be float32 or float64, got ", type_of(t));
  return is_f64;
}

void check_same_shape(const char* op, const char* argument, const Tensor& t, const char* other,
                      const Tensor& like) {
  check_device(op, argument, t, other, like);
  LIEROPE_CHECK(sizes_of(t) == sizes_of(like), op, ": ", argument, " must have the shape of ",
                other, ", ", shape_of(like), ", got ", shape_of(t));
  LIEROPE_CHECK(t.scalar_type() == like.scalar_type(), op, ": ", argument,
                " must have the dtype of ", other, ", ", type_of(like), ", got ", type_of(t));
}

int64_t product_of(const Tensor& t, int64_t end) {
  int64_t product = 1;
  for (int64_t i = 0; i < end; ++i) product *= t.size(i);
  return product;
}

int64_t square_size(const char* op, const char* argument, const Tensor& t, int64_t* count) {
  const int64_t dim = t.dim();
  LIEROPE_CHECK(dim >= 2 && t.size(dim - 1) == t.size(dim - 2) && t.size(dim - 1) >= 1, op, ": ",
                argument, " must have shape (..., n, n) with n >= 1, got ", shape_of(t));
  *count = product_of(t, dim - 2);
  return t.size(dim - 1);
}

// What allocates, or an error that says for whom. torch's own reason (a CPU without memory, a shape
// of more than 2^63 bytes) does not come through the stable ABI of every version.
template <class Make>
static Tensor allocated(const char* op, const Tensor& like, const std::vector<int64_t>& sizes,
                        const Make& make) {
  try {
    return make();
  } catch (const std::exception&) {
    fail(op, ": out of memory for a tensor of ", type_of(like), " and shape ", shape_text(sizes));
  }
}

Tensor contiguous(const char* op, const Tensor& t) {
  return allocated(op, t, sizes_of(t), [&] { return torch::stable::contiguous(t); });
}

Tensor with_unit_last_stride(const char* op, const Tensor& t) {
  const bool in_place = t.size(t.dim() - 1) <= 1 || t.stride(t.dim() - 1) == 1;
  return in_place ? t : contiguous(op, t);
}

View view_of(const Tensor& t) {
  return {t.const_data_ptr(), t.stride(0), t.stride(1), t.stride(2)};
}

// The emulation fills outputs with NaN, which shows what a kernel leaves out.
static void prepare_memory(const Tensor& t) {
#if defined(LIEROPE_EMULATED)
  if (t.numel() > 0) std::memset(t.mutable_data_ptr(), 0xff, size_t(t.numel()) * t.element_size());
#else
  prefer_large_pages(t.const_data_ptr(), size_t(t.numel()) * size_t(t.element_size()));
#endif
}

Tensor empty(const char* op, const Tensor& like, const std::vector<int64_t>& sizes) {
  Tensor t = allocated(op, like, sizes, [&] {
    return torch::stable::new_empty(like, {sizes.data(), sizes.size()});
  });
  if (t.is_cpu()) prepare_memory(t);
  return t;
}

Tensor empty_strided(const char* op, const Tensor& like, const std::array<int64_t, 4>& sizes,
                     const std::array<int64_t, 4>& strides) {
  int32_t dtype = 0, device = 0, index = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(like.get(), &dtype));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &index));
  Tensor t = allocated(op, like, {sizes.begin(), sizes.end()}, [&] {
    AtenTensorHandle made = nullptr;
    TORCH_ERROR_CODE_CHECK(
        aoti_torch_empty_strided(4, sizes.data(), strides.data(), dtype, device, index, &made));
    return Tensor(made);
  });
  if (t.is_cpu()) prepare_memory(t);
  return t;
}

}  // namespace lierope
