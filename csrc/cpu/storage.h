// bfloat16 and half as stored in memory: conversion of single elements, round to nearest even.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(__F16C__)
#include <immintrin.h>
#endif

#include "../math/portable.h"
#include "../params/dtype.h"

namespace lierope::cpu::LIEROPE_ISA {

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

LIEROPE_HD float bits_to_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
LIEROPE_HD uint32_t float_to_bits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

LIEROPE_HD float widen(float x) { return x; }
LIEROPE_HD double widen(double x) { return x; }
LIEROPE_HD float widen(BFloat16 x) { return bits_to_float(uint32_t(x.bits) << 16); }
LIEROPE_HD float widen(Half x) {
#if defined(__F16C__)
  return _cvtsh_ss(x.bits);
#else
  // Shift exponent and mantissa into place, then rescale: exact for normal and subnormal halves;
  // Inf and NaN keep theirs.
  const uint32_t sign = uint32_t(x.bits & 0x8000u) << 16, rest = uint32_t(x.bits & 0x7fffu) << 13;
  const float scaled = bits_to_float(rest) * bits_to_float(0x77800000u);  // 2^112
  const uint32_t bits = rest >= 0x0f800000u ? (rest | 0x7f800000u) : float_to_bits(scaled);
  return bits_to_float(sign | bits);
#endif
}

template <class Storage>
LIEROPE_HD Storage narrow(Compute<Storage> x);
template <>
LIEROPE_HD float narrow<float>(float x) {
  return x;
}
template <>
LIEROPE_HD double narrow<double>(double x) {
  return x;
}
template <>
LIEROPE_HD BFloat16 narrow<BFloat16>(float x) {
  const uint32_t bits = float_to_bits(x);
  const uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;  // rounding could carry a NaN into Inf
  return {uint16_t((is_nan ? (bits | 0x400000u) : rounded) >> 16)};
}
template <>
LIEROPE_HD Half narrow<Half>(float x) {
#if defined(__F16C__)
  return {uint16_t(_cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT))};
#else
  const uint32_t bits = float_to_bits(x), sign = (bits >> 16) & 0x8000u, rest = bits & 0x7fffffffu;
  if (rest > 0x7f800000u) return {uint16_t(sign | 0x7e00u)};   // NaN
  if (rest >= 0x477ff000u) return {uint16_t(sign | 0x7c00u)};  // rounds to Inf
  if (rest < 0x38800000u) {  // subnormal half: the adder does the rounding
    const float shifted =
        bits_to_float(rest) + 0.5f;  // unit in the last place of [0.5, 1) is 2^-24
    return {uint16_t(sign | (float_to_bits(shifted) - 0x3f000000u))};
  }
  const uint32_t rounded = rest - 0x38000000u + 0xfffu + ((rest >> 13) & 1u);
  return {uint16_t(sign | (rounded >> 13))};
#endif
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

}  // namespace lierope::cpu::LIEROPE_ISA
