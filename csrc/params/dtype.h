// The element types that kernels read and write; arithmetic is float for all but f64.
#pragma once
#include <cstdint>

namespace lierope {

enum class DType : int32_t { f32, f64, bf16, f16 };

}  // namespace lierope
