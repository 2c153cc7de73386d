// Vectors of this build's width on GCC's and Clang's vector extensions, with loads that convert
// storage to arithmetic type.
#pragma once
#include <cstdint>
#include <cstring>
#include <utility>

#include "../math/portable.h"
#include "storage.h"

#if defined(__AVX512F__)
#define LIEROPE_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define LIEROPE_VECTOR_BYTES 32
#else
#define LIEROPE_VECTOR_BYTES 16
#endif

namespace lierope::cpu::LIEROPE_ISA {

template <class T>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(LIEROPE_VECTOR_BYTES)));
  typedef int32_t mask __attribute__((vector_size(LIEROPE_VECTOR_BYTES)));
};
template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(LIEROPE_VECTOR_BYTES)));
  typedef int64_t mask __attribute__((vector_size(LIEROPE_VECTOR_BYTES)));
};

template <class T>
using Vec = typename VectorOf<T>::type;
template <class T>
using Mask = typename VectorOf<T>::mask;  // what comparing two Vec<T> gives: 0 or -1 a lane
template <class T>
inline constexpr int kLanes = LIEROPE_VECTOR_BYTES / int(sizeof(T));

template <class T>
LIEROPE_HD Vec<T> broadcast(T x) {
  return x - Vec<T>{};  // x - 0 keeps the sign of x = -0
}

template <class T>
LIEROPE_HD Vec<T> load(const T* p) {
  Vec<T> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
LIEROPE_HD void store(T* p, Vec<T> v) {
  std::memcpy(p, &v, sizeof v);
}

// Butterfly stage of a transposition: swaps the off-diagonal halves of the 2 x 2 blocks of size H.
template <class T, int H, int... I>
LIEROPE_HD void swap_halves(Vec<T>& a, Vec<T>& b, std::integer_sequence<int, I...>) {
  constexpr int L = kLanes<T>;
  Vec<T> x = __builtin_shufflevector(a, b, ((I & H) ? L + I - H : I)...);
  b = __builtin_shufflevector(a, b, ((I & H) ? L + I : I + H)...);
  a = x;
}

template <class T, int H>
LIEROPE_HD void transpose_stage(Vec<T>* rows) {
  if constexpr (H > 0) {
    LIEROPE_UNROLL
    for (int i = 0; i < kLanes<T>; ++i) {
      if (!(i & H))
        swap_halves<T, H>(rows[i], rows[i | H], std::make_integer_sequence<int, kLanes<T>>());
    }
    transpose_stage<T, H / 2>(rows);
  }
}

// rows[i][j] <-> rows[j][i] for kLanes x kLanes elements.
template <class T>
LIEROPE_HD void transpose(Vec<T>* rows) {
  transpose_stage<T, kLanes<T> / 2>(rows);
}

}  // namespace lierope::cpu::LIEROPE_ISA
