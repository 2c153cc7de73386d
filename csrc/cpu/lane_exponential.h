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

// a, w, z, out: packed strict upper triangles. r, g: full matrices, rotations as held
// (math::kLessIdentity) but for lane_expm's. `ahead` is asked for between products.
template <class T, int N>
void lane_expm(const Vec<T>* a, Vec<T>* r, Ahead& ahead);
template <class T, int N>
void lane_rotation(const Vec<T>* a, Vec<T>* r, Ahead& ahead);
template <class T, int N>
void lane_start(LaneAdjoint<T, N>& exponential, const Vec<T>* a, Ahead& ahead);
template <class T, int N>
void lane_pull_back(const Vec<T>* r, const Vec<T>* g, Vec<T>* w);
// w is overwritten.
template <class T, int N>
void lane_adjoint(const LaneAdjoint<T, N>& exponential, Vec<T>* w, Vec<T>* out, Ahead& ahead);

// Of sides above 4: out = the product of r and s; w = z + R w R^T.
template <class T, int N>
void lane_multiply(const Vec<T>* r, const Vec<T>* s, Vec<T>* out);
template <class T, int N>
void lane_add_conjugate(const Vec<T>* r, const Vec<T>* z, Vec<T>* w);

// Calls f with n as a constant, for n from 1 to Largest.
template <int Largest, class F>
LIEROPE_HD void with_size(int64_t n, F&& f) {
  if constexpr (Largest > 0) {
    if (n == Largest) return f(std::integral_constant<int, Largest>());
    with_size<Largest - 1>(n, f);
  }
}

}  // namespace lierope::cpu::LIEROPE_ISA
