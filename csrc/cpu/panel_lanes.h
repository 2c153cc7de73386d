// Packed matrices to and from the layout with one matrix a lane.
#pragma once
#include "panel_passes.h"

namespace lierope::cpu::LIEROPE_ISA {

// Element e = i * n + j of matrix l is elements[i * stride + j][l]. Matrices past `count` repeat
// the last.
template <class T>
inline void pack_lanes(const Shape<LaneLayout<T>>& s, const T* matrices, int count,
                       Vec<T>* elements) {
  constexpr int L = kLanes<T>;
  const int size = s.n * s.n;
  for (int e = 0, i = 0, j = 0; e < size;) {
    const int first = e + L <= size ? e : size - L;  // the last block overlaps the one before
    Vec<T> rows[L];
    LIEROPE_UNROLL
    for (int l = 0; l < L; ++l)
      rows[l] = load(matrices + int64_t(l < count ? l : count - 1) * size + first);
    transpose<T>(rows);
    for (int r = e - first; r < L; ++r, ++e) {
      elements[i * s.stride + j] = rows[r];
      if (++j == s.n) j = 0, ++i;
    }
  }
}

template <class T>
inline void unpack_lanes(const Shape<LaneLayout<T>>& s, const Vec<T>* elements, int count,
                         T* matrices) {
  constexpr int L = kLanes<T>;
  const int size = s.n * s.n;
  for (int block = 0; block < size; block += L) {
    const int first = block + L <= size ? block : size - L;
    Vec<T> rows[L];
    for (int r = 0, i = first / s.n, j = first % s.n; r < L; ++r) {
      rows[r] = elements[i * s.stride + j];
      if (++j == s.n) j = 0, ++i;
    }
    transpose<T>(rows);
    LIEROPE_UNROLL
    for (int l = 0; l < L; ++l)
      if (l < count) store(matrices + int64_t(l) * size + first, rows[l]);
  }
}

}  // namespace lierope::cpu::LIEROPE_ISA
