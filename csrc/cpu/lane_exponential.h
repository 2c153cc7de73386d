// Exponentials with one matrix a lane, sides 1 to kLanesLargest: compiled once for every kernel
// that needs them.
#pragma once
#include "../math/expm_lanes.h"
#include "ahead.h"
#include "simd.h"

namespace lierope::cpu::LIEROPE_ISA {

inline constexpr int kLanesLargest = 8;  // larger matrices: panel.h

template <class T, int N>
using LaneAdjoint = math::ExpmAdjoint<N, Vec<T>>;

// a, w, out: packed strict upper triangles. r, g: full matrices. `ahead` is asked for between
// products.
template <class T, int N>
void lane_expm(const Vec<T>* a, Vec<T>* r, Ahead& ahead);
template <class T, int N>
void lane_start(LaneAdjoint<T, N>& exponential, const Vec<T>* a, Ahead& ahead);
template <class T, int N>
void lane_rotation(const LaneAdjoint<T, N>& exponential, Vec<T>* r);
template <class T, int N>
void lane_pull_back(const LaneAdjoint<T, N>& exponential, const Vec<T>* g, Vec<T>* w);
// w is overwritten.
template <class T, int N>
void lane_adjoint(const LaneAdjoint<T, N>& exponential, Vec<T>* w, Vec<T>* out, Ahead& ahead);

// Calls f with n as a constant, for n from 1 to Largest.
template <int Largest, class F>
LIEROPE_HD void with_size(int64_t n, F&& f) {
  if constexpr (Largest > 0) {
    if (n == Largest) return f(std::integral_constant<int, Largest>());
    with_size<Largest - 1>(n, f);
  }
}

}  // namespace lierope::cpu::LIEROPE_ISA
