// The element type S of the mathematics, a number or a vector of lanes: its scalar, its bits, and
// choosing lane by lane.
#pragma once
#include <cstdint>
#include <type_traits>
#include <utility>

#include "portable.h"

namespace lierope::math {
inline namespace LIEROPE_ISA {

template <class S, bool number = std::is_arithmetic_v<S>>
struct ElementTraits {
  using Scalar = S;
  using Bits = std::conditional_t<sizeof(S) == 4, int32_t, int64_t>;
  using Mask = bool;
};
template <class S>
struct ElementTraits<S, false> {
  using Scalar = std::remove_cv_t<std::remove_reference_t<decltype(std::declval<S&>()[0])>>;
  using Bits = decltype(std::declval<S&>() < std::declval<S&>());
  using Mask = Bits;
};

template <class S>
using Scalar = typename ElementTraits<S>::Scalar;
template <class S>
using Bits = typename ElementTraits<S>::Bits;  // signed integers as wide as S
template <class S>
using MaskOf = typename ElementTraits<S>::Mask;  // what comparing two S gives
template <class S>
inline constexpr bool kIsVector = !std::is_arithmetic_v<S>;
template <class S>
inline constexpr int kWidth = int(sizeof(S) / sizeof(Scalar<S>));

template <class S>
LIEROPE_HD S constant(Scalar<S> x) {
  if constexpr (kIsVector<S>)
    return x - S{};  // x - 0 keeps the sign of x = -0
  else
    return x;
}

template <class S>
LIEROPE_HD Bits<S> to_bits(const S& x) {
  Bits<S> bits;
  __builtin_memcpy(&bits, &x, sizeof x);
  return bits;
}
template <class S>
LIEROPE_HD S from_bits(const Bits<S>& bits) {
  S x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}

template <class S>
LIEROPE_HD S absolute(const S& x) {
  constexpr int sign = int(8 * sizeof(Scalar<S>)) - 1;
  return from_bits<S>(to_bits(x) & ~(Bits<S>{} + (Bits<Scalar<S>>(1) << sign)));
}

#if !defined(__CUDACC__)
template <class T, int L>
struct VectorType {
  typedef T type __attribute__((vector_size(L * sizeof(T))));
};
template <class T, int L>
using Vector = typename VectorType<T, L>::type;

// Lanes First .. First + L - 1 of v.
template <int First, int L, class V, int... I>
LIEROPE_HD Vector<Scalar<V>, L> part(const V& v, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(v, v, (First + I)...);
}
template <int First, int L, class V>
LIEROPE_HD Vector<Scalar<V>, L> part(const V& v) {
  return part<First, L>(v, std::make_integer_sequence<int, L>());
}
template <class V, int... I>
LIEROPE_HD Vector<Scalar<V>, int(sizeof...(I))> join(const V& lo, const V& hi,
                                                     std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(lo, hi, I...);
}
template <class V>
LIEROPE_HD Vector<Scalar<V>, 2 * kWidth<V>> join(const V& lo, const V& hi) {
  return join(lo, hi, std::make_integer_sequence<int, 2 * kWidth<V>>());
}
// The low halves of the words of lo, then of hi.
template <class V, int... I>
LIEROPE_HD Vector<int32_t, int(sizeof...(I))> low_words(const V& lo, const V& hi,
                                                        std::integer_sequence<int, I...>) {
  using Words = Vector<int32_t, int(sizeof...(I))>;
  return __builtin_shufflevector(Words(lo), Words(hi), (2 * I)...);
}
template <class V>
LIEROPE_HD Vector<int32_t, 2 * kWidth<V>> low_words(const V& lo, const V& hi) {
  return low_words(lo, hi, std::make_integer_sequence<int, 2 * kWidth<V>>());
}
#endif

template <class S>
LIEROPE_HD S square_root(const S& x) {
#if defined(__CUDACC__)
  return sqrt(x);
#else
  if constexpr (kIsVector<S>) {
    S root;
    LIEROPE_UNROLL
    for (int i = 0; i < kWidth<S>; ++i) root[i] = square_root(x[i]);
    return root;
  } else {
    return sizeof(S) == 4 ? S(__builtin_sqrtf(float(x))) : S(__builtin_sqrt(double(x)));
  }
#endif
}

// Whether any lane of a mask is set.
template <class M>
LIEROPE_HD bool any(const M& mask) {
  if constexpr (std::is_same_v<M, bool>) {
    return mask;
#if !defined(__CUDACC__)
  } else if constexpr (sizeof(M) > 16) {
    constexpr int half = kWidth<M> / 2;
    return any(part<0, half>(mask) | part<half, half>(mask));
#endif
  } else {
    uint64_t words[2];
    __builtin_memcpy(words, &mask, sizeof words);
    return (words[0] | words[1]) != 0;
  }
}

}  // namespace LIEROPE_ISA
}  // namespace lierope::math
