// The definitions of lane_exponential.h for one arithmetic type, LIEROPE_LANE_TYPE.
#pragma once
#include "lane_exponential.h"

namespace lierope::cpu::LIEROPE_ISA {

template <class T, int N>
void lane_expm(const Vec<T>* a, Vec<T>* r, Ahead& ahead) {
  math::expm<N>(a, r, [&] { ahead.some_lines(); });
}
template <class T, int N>
void lane_start(LaneAdjoint<T, N>& exponential, const Vec<T>* a, Ahead& ahead) {
  exponential.start(a, [&] { ahead.some_lines(); });
}
template <class T, int N>
void lane_adjoint(const LaneAdjoint<T, N>& exponential, Vec<T>* w, Vec<T>* out, Ahead& ahead) {
  exponential.adjoint(w, out, [&] { ahead.some_lines(); });
}
template <class T, int N>
void lane_rotation(const Vec<T>* a, Vec<T>* r, Ahead& ahead) {
  math::held_expm<N>(a, r, [&] { ahead.some_lines(); });
}
template <class T, int N>
void lane_pull_back(const Vec<T>* r, const Vec<T>* g, Vec<T>* w) {
  math::pull_back<N>(r, g, w);
}
template <class T, int N>
void lane_multiply(const Vec<T>* r, const Vec<T>* s, Vec<T>* out) {
  math::multiply_rotations<N>(r, s, out);
}
template <class T, int N>
void lane_add_conjugate(const Vec<T>* r, const Vec<T>* z, Vec<T>* w) {
  Vec<T> y[N * N];
  math::add_conjugate<N>(r, z, w, y);
}

#define LIEROPE_LANE_SIZE(T, N)                                              \
  template void lane_expm<T, N>(const Vec<T>*, Vec<T>*, Ahead&);             \
  template void lane_rotation<T, N>(const Vec<T>*, Vec<T>*, Ahead&);         \
  template void lane_start<T, N>(LaneAdjoint<T, N>&, const Vec<T>*, Ahead&); \
  template void lane_pull_back<T, N>(const Vec<T>*, const Vec<T>*, Vec<T>*); \
  template void lane_adjoint<T, N>(const LaneAdjoint<T, N>&, Vec<T>*, Vec<T>*, Ahead&);
#define LIEROPE_LANE_PRODUCTS(T, N)                                         \
  template void lane_multiply<T, N>(const Vec<T>*, const Vec<T>*, Vec<T>*); \
  template void lane_add_conjugate<T, N>(const Vec<T>*, const Vec<T>*, Vec<T>*);
static_assert(kLanesLargest == 8);
LIEROPE_LANE_SIZE(LIEROPE_LANE_TYPE, 1)
LIEROPE_LANE_SIZE(LIEROPE_LANE_TYPE, 2)
LIEROPE_LANE_SIZE(LIEROPE_LANE_TYPE, 3)
LIEROPE_LANE_SIZE(LIEROPE_LANE_TYPE, 4)
LIEROPE_LANE_SIZE(LIEROPE_LANE_TYPE, 5)
LIEROPE_LANE_SIZE(LIEROPE_LANE_TYPE, 6)
LIEROPE_LANE_SIZE(LIEROPE_LANE_TYPE, 7)
LIEROPE_LANE_SIZE(LIEROPE_LANE_TYPE, 8)
LIEROPE_LANE_PRODUCTS(LIEROPE_LANE_TYPE, 5)
LIEROPE_LANE_PRODUCTS(LIEROPE_LANE_TYPE, 6)
LIEROPE_LANE_PRODUCTS(LIEROPE_LANE_TYPE, 7)
LIEROPE_LANE_PRODUCTS(LIEROPE_LANE_TYPE, 8)
#undef LIEROPE_LANE_SIZE
#undef LIEROPE_LANE_PRODUCTS

}  // namespace lierope::cpu::LIEROPE_ISA
