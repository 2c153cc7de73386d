// Element types as stored in memory, 16 bytes of them as one access, and their arithmetic type.
#pragma once
#include "../csrc/params/dtype.h"
#include "portable.cuh"
#if !defined(LIEROPE_EMULATED)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace lierope::cuda {

struct BFloat16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

// The type that arithmetic is done in.
template <class Storage>
struct ComputeOf {
  using type = float;
};
template <>
struct ComputeOf<double> {
  using type = double;
};
template <class Storage>
using Compute = typename ComputeOf<Storage>::type;

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ double widen(double x) { return x; }
__device__ __forceinline__ float widen(BFloat16 x) {
  return __uint_as_float(unsigned(x.bits) << 16);
}
__device__ __forceinline__ float widen(Half x) {
#if defined(LIEROPE_EMULATED)
  return float(emulation::same_bits<_Float16>(x.bits));
#else
  return __half2float(__ushort_as_half(x.bits));
#endif
}

// Rounds to the nearest, ties to even.
template <class Storage>
__device__ __forceinline__ Storage narrow(Compute<Storage> x);
template <>
__device__ __forceinline__ float narrow<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ double narrow<double>(double x) {
  return x;
}
template <>
__device__ __forceinline__ BFloat16 narrow<BFloat16>(float x) {
#if defined(LIEROPE_EMULATED)
  const unsigned bits = __float_as_uint(x);
  const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
  const unsigned rounded = is_nan ? bits | 0x400000u : bits + 0x7fffu + (bits >> 16 & 1u);
  return {uint16_t(rounded >> 16)};
#else
  return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
#endif
}
template <>
__device__ __forceinline__ Half narrow<Half>(float x) {
#if defined(LIEROPE_EMULATED)
  return {emulation::same_bits<uint16_t>(_Float16(x))};
#else
  return {__half_as_ushort(__float2half_rn(x))};
#endif
}

// 16 bytes of elements: one access where the address is a multiple of 16.
template <class Storage>
struct alignas(16) Pack {
  static constexpr int count = int(16 / sizeof(Storage));
  Storage v[count];
};
template <class Storage>
__device__ __forceinline__ Pack<Storage> load_pack(const Storage* p) {
  const uint4 words = *reinterpret_cast<const uint4*>(p);
  Pack<Storage> pack;
  __builtin_memcpy(&pack, &words, 16);
  return pack;
}
// Writes `bytes` bytes that lie in registers to global memory, where they are aligned, at once. A
// plain assignment of a vector is taken apart into stores of its elements (nvcc 13.0).
template <int bytes>
__device__ __forceinline__ void store_at_once(void* p, const void* from) {
  if constexpr (bytes == 16) {
    uint4 words;
    __builtin_memcpy(&words, from, 16);
    __stwb(static_cast<uint4*>(p), words);
  } else if constexpr (bytes == 8) {
    uint2 words;
    __builtin_memcpy(&words, from, 8);
    __stwb(static_cast<uint2*>(p), words);
  } else if constexpr (bytes == 4) {
    unsigned word;
    __builtin_memcpy(&word, from, 4);
    __stwb(static_cast<unsigned*>(p), word);
  } else {
    static_assert(bytes == 2);
    __builtin_memcpy(p, from, 2);
  }
}
template <class Storage>
__device__ __forceinline__ void store_pack(Storage* p, const Pack<Storage>& pack) {
  store_at_once<16>(p, pack.v);
}

// Calls f with a value of the storage type that dtype names.
template <class F>
inline void with_storage(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f32: return f(float{});
    case DType::f64: return f(double{});
    case DType::bf16: return f(BFloat16{});
    case DType::f16: return f(Half{});
  }
}

}  // namespace lierope::cuda
