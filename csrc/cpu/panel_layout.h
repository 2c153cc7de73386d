// How panel matrices lie in vectors: a vector along each row, or one matrix in each lane.
#pragma once
#include "../math/element.h"
#include "simd.h"

#if defined(__clang__)
#define LIEROPE_KEEP_LOOP _Pragma("nounroll")
#else
#define LIEROPE_KEEP_LOOP _Pragma("GCC unroll 1")
#endif

namespace lierope::cpu::LIEROPE_ISA {

#if defined(__AVX512F__) || defined(__aarch64__)
inline constexpr int kRegisters = 32;
#else
inline constexpr int kRegisters = 16;
#endif

// A layout names the element E of a matrix, the vector V that passes over kWidth elements of a row,
// the matrices kGroup that are done at once, and the register tile of a product.
template <class T>
struct RowLayout {
  using Number = T;
  using Element = T;
  using Vector = Vec<T>;
  static constexpr bool kLanewise = false;
  static constexpr int kWidth = kLanes<T>, kGroup = 1;
  static constexpr int kTileRows = kRegisters == 32 ? 8 : 4;
  static constexpr int kTileVectors = kRegisters == 32 ? 2 : 3;
};

template <class T>
struct LaneLayout {
  using Number = T;
  using Element = Vec<T>;
  using Vector = Vec<T>;
  static constexpr bool kLanewise = true;
  static constexpr int kWidth = 1, kGroup = kLanes<T>;
  static constexpr int kTileRows = 4;
  static constexpr int kTileVectors = kRegisters == 32 ? 4 : 2;
};

constexpr int round_up(int n, int step) { return (n + step - 1) / step * step; }
constexpr int least(int a, int b) { return a < b ? a : b; }
constexpr int64_t least64(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int most(int a, int b) { return a > b ? a : b; }
constexpr int64_t most64(int64_t a, int64_t b) { return a > b ? a : b; }

// Products compute rows in steps of 4; the rows past n hold nothing that anything valid reads.
inline constexpr int kRowStep = 4;

// A matrix of side n in a padded buffer: `rows` are computed, `columns` are held, rows start
// `stride` apart.
template <class Y>
struct Shape {
  int n, rows, columns, stride;

  explicit constexpr Shape(int side)
      : n(side),
        rows(round_up(side, kRowStep)),
        columns(round_up(side, most(Y::kWidth, kRowStep))),
        stride(columns) {
    // An odd number of cache lines a row spreads the rows of a large matrix over all sets.
    constexpr int line = Y::kLanewise ? 1 : 64 / int(sizeof(typename Y::Element));
    if (!Y::kLanewise && columns % (4 * line) == 0) stride += line;
  }
};

// Only the lower part of a symmetric or skew result is computed: in each row the columns before
// `band_end`, whole bands of columns so that register tiles stay full.
template <class Y>
inline constexpr int kBand = most(Y::kTileRows, Y::kWidth);

template <class Y>
LIEROPE_HD int band_end(int row, int columns) {
  return least((row / kBand<Y> + 1) * kBand<Y>, columns);
}

template <class Y>
LIEROPE_HD typename Y::Vector get(const typename Y::Element* p) {
  typename Y::Vector v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class Y>
LIEROPE_HD void put(typename Y::Element* p, typename Y::Vector v) {
  std::memcpy(p, &v, sizeof v);
}

// rows[i][j] <-> rows[j][i] for kWidth x kWidth elements.
template <class Y>
LIEROPE_HD void transpose_tile(typename Y::Vector* rows) {
  if constexpr (!Y::kLanewise) transpose<typename Y::Number>(rows);
}

// Exponents as integers: no logarithm, and nothing overflows.
template <class T>
struct Exponent {
  static constexpr int mantissa = sizeof(T) == 4 ? 23 : 52, bias = sizeof(T) == 4 ? 127 : 1023;
};

template <class E>
LIEROPE_HD math::Bits<E> ceil_log2(
    E x) {  // x > 0; below the smallest normal number: at most -bias + 1
  using X = Exponent<math::Scalar<E>>;
  using Word = math::Scalar<math::Bits<E>>;
  // Of NaN too, whose bits are close to the largest number.
  return ((math::to_bits(x) - 1) >> X::mantissa) + Word(1 - X::bias);
}
template <class E>
LIEROPE_HD E power_of_two(math::Bits<E> k) {
  using X = Exponent<math::Scalar<E>>;
  using Word = math::Scalar<math::Bits<E>>;
  return math::from_bits<E>((k + Word(X::bias)) << X::mantissa);
}

}  // namespace lierope::cpu::LIEROPE_ISA
