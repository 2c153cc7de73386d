// expm_skew and its adjoint: one matrix a lane up to kLanesLargest, one matrix in cache above.
#include "../kernels.h"
#include "../parallel.h"
#include "lane_exponential.h"
#include "lanes.h"
#include "panel.h"
#include "scratch.h"

namespace lierope::cpu::LIEROPE_ISA {

// The matrices of group `group` of kLanes.
template <class T, int N>
static LIEROPE_HD SomeRows<T> group_of(T* matrices, int64_t count, int64_t group) {
  constexpr int L = kLanes<std::remove_const_t<T>>;
  const int64_t first = group * L, left = count - first;
  return {matrices + first * N * N, N * N, int(left < L ? left : L)};
}

template <class T, int N>
static LIEROPE_HD void load_triangles(const LaneRows<const T>& rows, Vec<T>* a) {
  Vec<T> full[N * N];
  load_rows<N * N, T>(rows, full);
  LIEROPE_UNROLL
  for (int i = 0; i < N; ++i) LIEROPE_UNROLL
  for (int j = i + 1; j < N; ++j) a[math::Skew<N>::at(i, j)] = full[i * N + j];
}

// The matrices of the group after this one, whole: the last group may be smaller.
template <class T, int N>
static LIEROPE_HD Ahead::Lines next_group(const T* matrices, int64_t count, int64_t group) {
  const int64_t first = (group + 1) * kLanes<T>, left = count - first;
  const int64_t here = left < kLanes<T> ? left : kLanes<T>;
  return here > 0 ? Ahead::Lines(matrices + first * N * N, here * N * N) : Ahead::Lines();
}

constexpr int kProducts = 8;  // of an exponential, about; twice as many of an adjoint

// Groups a thread should at least take: about 20 microseconds of work.
template <int N>
inline constexpr int64_t kGrain = N < 5 ? 256 : 16;

template <class T, int N>
static void expm_groups(const ExpmSkewParams& params, int64_t begin, int64_t end) {
  const T* a = static_cast<const T*>(params.a);
  T* r = static_cast<T*>(params.r);
  StagedRows<T> staged(N * N);
  for (int64_t group = begin; group < end; ++group) {
    Vec<T> triangle[math::kTriangle<N> + 1], rotation[N * N];
    Ahead ahead({}, next_group<T, N>(r, params.count, group),
                next_group<T, N>(a, params.count, group), kProducts);
    load_triangles<T, N>(staged.read(group_of<const T, N>(a, params.count, group)), triangle);
    lane_expm<T, N>(triangle, rotation, ahead);
    const SomeRows<T> rows = group_of<T, N>(r, params.count, group);
    store_rows<N * N, T>(staged.target(rows), rotation);
    staged.flush(rows);
  }
}

template <class T, int N>
static void expm_backward_groups(const ExpmSkewBackwardParams& params, int64_t begin, int64_t end) {
  const T *a = static_cast<const T*>(params.a), *grad = static_cast<const T*>(params.grad);
  T* out = static_cast<T*>(params.out);
  Scratch<LaneAdjoint<T, N>> scratch(1);
  StagedRows<T> staged(N * N);
  LaneAdjoint<T, N>& exponential = *scratch;
  for (int64_t group = begin; group < end; ++group) {
    Vec<T> triangle[math::kTriangle<N> + 1], w[math::kTriangle<N> + 1], full[N * N];
    Ahead ahead(next_group<T, N>(grad, params.count, group),
                next_group<T, N>(out, params.count, group),
                next_group<T, N>(a, params.count, group), 2 * kProducts);
    load_triangles<T, N>(staged.read(group_of<const T, N>(a, params.count, group)), triangle);
    lane_start<T, N>(exponential, triangle, ahead);
    load_rows<N * N, T>(staged.read(group_of<const T, N>(grad, params.count, group)), full);
    lane_pull_back<T, N>(exponential.rotation(), full, w);
    lane_adjoint<T, N>(exponential, w, triangle, ahead);  // w is twice W0, so this is twice Abar
    LIEROPE_UNROLL
    for (int i = 0; i < N; ++i) LIEROPE_UNROLL
    for (int j = 0; j < N; ++j)
      full[i * N + j] = i < j ? triangle[math::Skew<N>::at(i, j)] : Vec<T>{};
    const SomeRows<T> rows = group_of<T, N>(out, params.count, group);
    store_rows<N * N, T>(staged.target(rows), full);
    staged.flush(rows);
  }
}

template <class T>
static int64_t groups(int64_t count) {
  return (count + kLanes<T> - 1) / kLanes<T>;
}

template <class T, int N>
static void expm_skew_lanes(const ExpmSkewParams& params) {
  parallel_for(groups<T>(params.count), kGrain<N>,
               [&](int64_t begin, int64_t end) { expm_groups<T, N>(params, begin, end); });
}

template <class T, int N>
static void expm_skew_lanes_backward(const ExpmSkewBackwardParams& params) {
  parallel_for(groups<T>(params.count), kGrain<N>,
               [&](int64_t begin, int64_t end) { expm_backward_groups<T, N>(params, begin, end); });
}

void expm_skew(const ExpmSkewParams& params) {
  if (params.n > kLanesLargest) return panel_expm_skew(params);
  with_size<kLanesLargest>(params.n, [&](auto n) {
    if (params.is_double)
      expm_skew_lanes<double, n>(params);
    else
      expm_skew_lanes<float, n>(params);
  });
}

void expm_skew_backward(const ExpmSkewBackwardParams& params) {
  if (params.n > kLanesLargest) return panel_expm_skew_backward(params);
  with_size<kLanesLargest>(params.n, [&](auto n) {
    if (params.is_double)
      expm_skew_lanes_backward<double, n>(params);
    else
      expm_skew_lanes_backward<float, n>(params);
  });
}

}  // namespace lierope::cpu::LIEROPE_ISA
