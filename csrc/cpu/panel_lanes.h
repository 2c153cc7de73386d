// Packed matrices to and from the layout with one matrix a lane.
#pragma once
#include "panel_passes.h"

namespace lierope::cpu::LIEROPE_ISA {

// Up to here one matrix a lane is faster: a row would not fill vectors, or leave half of each idle.
template <class T>
inline constexpr int kLargestInLanes = kLanes<T> >= 16 ? 16 : 0;

// Calls f with the faster layout for matrices of side n.
template <class T, class F>
void with_layout(int64_t n, F&& f) {
  if constexpr (kLargestInLanes<T> > 0)
    if (n <= kLargestInLanes<T>) return f(LaneLayout<T>{});
  f(RowLayout<T>{});
}

// Matrices of sides up to the number of lanes, one for each, behind one another; lanes past `count`
// repeat the last.
template <class P>
struct LaneGroup {
  P* first;
  int count;
  int64_t size;

  LIEROPE_HD bool has(int lane) const { return lane < count; }
  LIEROPE_HD P* operator[](int lane) const { return first + (has(lane) ? lane : count - 1) * size; }
};

// A matrix for each lane, anywhere; lanes without one read zeros.
template <class P>
struct LanePlaces {
  using T = std::remove_const_t<P>;
  P* place[kLanes<T>];

  LIEROPE_HD bool has(int lane) const { return place[lane] != nullptr; }
  LIEROPE_HD P* operator[](int lane) const { return has(lane) ? place[lane] : nothing(); }

 private:
  static P* nothing() {
    static T zeros[kLanes<T> * kLanes<T>] = {};
    return zeros;
  }
};

// a = the skew matrices of the strict upper triangles; the diagonal and the padding of a stay as
// they are. Row i of a triangle has n - 1 - i elements and row n - 2 - i the other i + 1 of n:
// together they fill one vector, which halves the transpositions.
template <class T>
inline void pack_upper(const Shape<LaneLayout<T>> s, const LaneGroup<const T> group, Vec<T>* a) {
  constexpr int L = kLanes<T>;
  const int n = s.n;
  Mask<T> lane;
  LIEROPE_UNROLL
  for (int l = 0; l < L; ++l) lane[l] = l;
  for (int i = 0; i <= n - 2 - i; ++i) {
    const int k = n - 2 - i, split = n - 1 - i;
    const int upper = i * n + i + 1,
              lower = k * n + k + 1 - split;  // >= 0, <= n * n - L for n >= 8
    const Mask<T> from_upper = lane < split;
    Vec<T> rows[L];
    LIEROPE_UNROLL
    for (int l = 0; l < L; ++l)
      rows[l] = from_upper ? load(group[l] + upper) : load(group[l] + lower);
    transpose<T>(rows);
    for (int r = 0; r < n; ++r) {
      const int row = r < split ? i : k, column = r < split ? i + 1 + r : k + 1 + r - split;
      a[row * s.stride + column] = rows[r];
      a[column * s.stride + row] = -rows[r];
    }
  }
}

// x = the whole matrices at group[lane].
template <class T, class Group>
inline void pack(const Shape<LaneLayout<T>> s, const Group& group, Vec<T>* x) {
  constexpr int L = kLanes<T>;
  const int size = s.n * s.n;
  for (int e = 0, i = 0, j = 0; e < size;) {
    const int first = e + L <= size ? e : size - L;  // the last block overlaps the one before
    Vec<T> rows[L];
    LIEROPE_UNROLL
    for (int l = 0; l < L; ++l) rows[l] = load(group[l] + first);
    transpose<T>(rows);
    for (int r = e - first; r < L; ++r, ++e) {
      x[i * s.stride + j] = rows[r];
      if (++j == s.n) j = 0, ++i;
    }
  }
}

// The inverse of pack, of the lanes that `group` has: element(i, j) gives the elements of all.
template <class T, class Group, class F>
inline void unpack(const Shape<LaneLayout<T>> s, const Group& group, F&& element) {
  constexpr int L = kLanes<T>;
  const int size = s.n * s.n;
  for (int block = 0; block < size; block += L) {
    const int first = block + L <= size ? block : size - L;
    Vec<T> rows[L];
    for (int r = 0, i = first / s.n, j = first % s.n; r < L; ++r) {
      rows[r] = element(i, j);
      if (++j == s.n) j = 0, ++i;
    }
    transpose<T>(rows);
    LIEROPE_UNROLL
    for (int l = 0; l < L; ++l)
      if (group.has(l)) store(group[l] + first, rows[l]);
  }
}

}  // namespace lierope::cpu::LIEROPE_ISA
