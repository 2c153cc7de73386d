// Rows of features to vectors with a token in each lane, and back.
#pragma once
#include "convert.h"
#include "rows.h"

namespace lierope::cpu::LIEROPE_ISA {

// Transposes `tokens` rows, at most a vector of them: out[feature * step], lane token. The other
// lanes and the features up to a multiple of the lanes are zero. Unrolled, a square stays in
// registers.
template <class Storage>
__attribute__((noinline)) inline void to_lanes(const Storage* rows, int64_t stride, int64_t tokens,
                                               int64_t features, Vec<Compute<Storage>>* out,
                                               int64_t step = 1) {
  using T = Compute<Storage>;
  constexpr int L = kLanes<T>;
  for (int64_t i = 0; i < features; i += L) {
    const int64_t count = smaller(L, features - i);
    Vec<T> square[L];
    if (tokens == L && count == L) {
      LIEROPE_UNROLL
      for (int t = 0; t < L; ++t) square[t] = load_wide(rows + t * stride + i);
    } else {
      LIEROPE_UNROLL
      for (int t = 0; t < L; ++t)
        square[t] = t < tokens ? load_wide(rows + t * stride + i, count) : Vec<T>{};
    }
    transpose<T>(square);
    LIEROPE_UNROLL
    for (int t = 0; t < L; ++t) out[(i + t) * step] = square[t];
  }
}

template <class Storage>
__attribute__((noinline)) inline void from_lanes(const Vec<Compute<Storage>>* in, Storage* rows,
                                                 int64_t stride, int64_t tokens, int64_t features,
                                                 int64_t step = 1) {
  using T = Compute<Storage>;
  constexpr int L = kLanes<T>;
  for (int64_t i = 0; i < features; i += L) {
    const int64_t count = smaller(L, features - i);
    Vec<T> square[L];
    LIEROPE_UNROLL
    for (int t = 0; t < L; ++t) square[t] = in[(i + t) * step];
    transpose<T>(square);
    if (tokens == L && count == L) {
      LIEROPE_UNROLL
      for (int t = 0; t < L; ++t) store_narrow(rows + t * stride + i, square[t]);
    } else {
      LIEROPE_UNROLL
      for (int t = 0; t < L; ++t) {
        if (t < tokens) store_narrow(rows + t * stride + i, square[t], count);
      }
    }
  }
}

}  // namespace lierope::cpu::LIEROPE_ISA
