// Reading tensors for the kernels: names for messages, element types, views, allocation.
#pragma once
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <string>
#include <vector>

#include "../check.h"
#include "../kernels.h"

namespace lierope {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// "(2, 3, 8)"
std::string shape_of(const Tensor& t);
// "float32"
std::string type_of(const Tensor& t);

// The storage type of q, k or x. op and argument name them in the error.
DType storage_type(const char* op, const char* argument, const Tensor& t);

// Checks that t is float64 when is_double, else float32 (the type that angles and exponentials are
// computed in).
void check_compute_type(const char* op, const char* argument, const Tensor& t, bool is_double);
// float32 -> false, float64 -> true, anything else is an error.
bool is_double(const char* op, const char* argument, const Tensor& t);

void check_same_shape(const char* op, const char* argument, const Tensor& t, const char* other,
                      const Tensor& like);
// The product of the sizes [0, end). 63 bits hold it: torch has counted the elements in as many.
int64_t product_of(const Tensor& t, int64_t end);
// (..., n, n) with n >= 1; returns n and sets count to the product of the leading sizes.
int64_t square_size(const char* op, const char* argument, const Tensor& t, int64_t* count);

// Whatever takes memory is given the operator's name, for the error where there is too little.

// The tensor itself when it is contiguous, else a copy.
Tensor contiguous(const char* op, const Tensor& t);
// The tensor itself when its last dimension has stride 1, else a contiguous copy.
Tensor with_unit_last_stride(const char* op, const Tensor& t);
View view_of(const Tensor& t);  // of a 4-d tensor

Tensor empty(const char* op, const Tensor& like, const std::vector<int64_t>& sizes);
Tensor empty_strided(const char* op, const Tensor& like, const std::array<int64_t, 4>& sizes,
                     const std::array<int64_t, 4>& strides);
std::vector<int64_t> sizes_of(const Tensor& t);

}  // namespace lierope
