// Pairs of features: which of a row a thread has, in either layout, and their sine and cosine.
#pragma once
#include "../csrc/math/sincos.h"
#include "rows.cuh"

namespace lierope::cuda {

__device__ __forceinline__ void sine_and_cosine(float t, float* s, float* c) {
#if defined(LIEROPE_EMULATED)
  math::sincos(t, s, c);
#else
  sincosf(t, s, c);
#endif
}
__device__ __forceinline__ void sine_and_cosine(double t, double* s, double* c) {
#if defined(LIEROPE_EMULATED)
  math::sincos(t, s, c);
#else
  sincos(t, s, c);
#endif
}

// The features that a thread has of each row: one run with its pairs side by side, or (the half
// layout) two runs that hold the first and second members. `turned` of the pairs are rotated, the
// others copied; a second run may be missing, and so may elements of a run that is not wide.
template <class Storage, bool interleaved_, bool wide_>
struct PairLayout {
  using T = Compute<Storage>;
  static constexpr bool interleaved = interleaved_, wide = wide_;
  static constexpr int kRun = wide ? Pack<Storage>::count : interleaved ? 2 : 1;
  static constexpr int kRuns = interleaved ? 1 : 2;
  static constexpr int kPairs = kRun * kRuns / 2;

  int64_t first, second;  // features
  int64_t pair;           // the first pair
  int turned;
  bool has_second, whole;

  // Parts of a row, and part `i` of them.
  static int64_t parts(int64_t head_dim, int64_t pairs) {
    if (interleaved) return (head_dim + kRun - 1) / kRun;
    return pairs / kRun + (head_dim - 2 * pairs) / kRun;
  }
  __device__ __forceinline__ PairLayout(int64_t i, int64_t head_dim, int64_t pairs, bool rotate) {
    if constexpr (interleaved) {
      first = i * kRun;
      pair = first / 2;
      const int64_t left = pairs - pair;
      turned = !rotate || left <= 0 ? 0 : left < kPairs ? int(left) : kPairs;
      has_second = false;
      whole = first + kRun <= head_dim;
    } else {
      const bool in_pairs = i < pairs / kRun;
      first = in_pairs ? i * kRun : 2 * pairs + (i - pairs / kRun) * kRun;
      pair = first;
      turned = rotate && in_pairs ? kPairs : 0;
      has_second = in_pairs;
      whole = true;
    }
    second = first + pairs;
  }
};

template <class Layout, class Storage>
struct Part {
  Run<Storage, Layout::kRun, Layout::wide> run[Layout::kRuns];

  __device__ __forceinline__ void load(const Layout& at, const Storage* row) {
    if (Layout::wide || at.whole)
      run[0].load(row + at.first);
    else
      run[0].v[0] = row[at.first];
    if constexpr (!Layout::interleaved) {
      if (at.has_second) run[1].load(row + at.second);
    }
  }
  __device__ __forceinline__ void store(const Layout& at, Storage* row) const {
    if (Layout::wide || at.whole)
      run[0].store(row + at.first);
    else
      row[at.first] = run[0].v[0];
    if constexpr (!Layout::interleaved) {
      if (at.has_second) run[1].store(row + at.second);
    }
  }
  // A choice, not a branch: behind branches the elements would be stored one by one.
  __device__ __forceinline__ void set(const Layout& at, int pair, Compute<Storage> first,
                                      Compute<Storage> second) {
    Storage &m0 = member(pair, 0), &m1 = member(pair, 1);
    m0 = pair < at.turned ? narrow<Storage>(first) : m0;
    m1 = pair < at.turned ? narrow<Storage>(second) : m1;
  }
  __device__ __forceinline__ Storage& member(int pair, int which) {
    return Layout::interleaved ? run[0].v[2 * pair + which]
                               : run[which & (Layout::kRuns - 1)].v[pair];
  }
};

}  // namespace lierope::cuda
