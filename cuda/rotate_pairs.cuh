// rotate_pairs and its adjoint: a thread takes the sines and cosines of 16 bytes of features of one
// token and rotation head once and turns the same features of the whole batch with them.
#pragma once
#include <type_traits>

#include "../csrc/params/rotate_pairs.h"
#include "pair_layout.cuh"
#include "partial_sums.cuh"

namespace lierope::cuda {

constexpr int kPairThreads = 128;
constexpr int kBlocksWanted = 8;  // of 128 threads a multiprocessor: 1024 threads of 64 registers

template <class T, int count>
struct Turns {
  T cosine[count], sine[count];
};

// The part's angles are those from `first` on; the prefix has none.
template <class Layout>
__device__ __forceinline__ Turns<typename Layout::T, Layout::kPairs> turns_of(const Layout& at,
                                                                              const void* angles,
                                                                              int64_t first,
                                                                              bool inverse) {
  using T = typename Layout::T;
  Turns<T, Layout::kPairs> turns;
  LIEROPE_UNROLL
  for (int e = 0; e < Layout::kPairs; ++e) {
    T s = 0, c = 1;
    if (e < at.turned) sine_and_cosine(__ldg(static_cast<const T*>(angles) + first + e), &s, &c);
    turns.cosine[e] = c;
    turns.sine[e] = inverse ? -s : s;
  }
  return turns;
}

// What a thread works on: its part of a row at one token and rotation head, in batch elements [b0,
// b1).
struct PairWork {
  int64_t n, part, r, b0, b1;

  __device__ __forceinline__ PairWork(const Tokens& shape, int64_t parts, int64_t item, int64_t r_,
                                      int64_t slice, int64_t slices)
      : n(item / parts), part(item % parts), r(r_) {
    b0 = shape.per_sample ? slice : shape.batch * slice / slices;
    b1 = shape.per_sample ? slice + 1 : shape.batch * (slice + 1) / slices;
  }
};

template <class Layout, class Storage>
__device__ __forceinline__ void turn_rows(const Layout& at, const PairWork& w,
                                          const Rows<const Storage>& x, const Rows<Storage>& y,
                                          int64_t heads_each,
                                          const Turns<Compute<Storage>, Layout::kPairs>& turns) {
  constexpr int kAhead = 4;  // rows asked for before the first is used
  for (int64_t h = w.r * heads_each; h < (w.r + 1) * heads_each; ++h) {
    for (int64_t b = w.b0; b < w.b1; b += kAhead) {
      Part<Layout, Storage> part[kAhead];
      LIEROPE_UNROLL
      for (int u = 0; u < kAhead; ++u)
        if (b + u < w.b1) part[u].load(at, x.at(b + u, h, w.n));
      LIEROPE_UNROLL
      for (int u = 0; u < kAhead; ++u) {
        if (b + u >= w.b1) continue;
        LIEROPE_UNROLL
        for (int e = 0; e < Layout::kPairs; ++e) {
          const auto x0 = widen(part[u].member(e, 0)), x1 = widen(part[u].member(e, 1));
          part[u].set(at, e, x0 * turns.cosine[e] - x1 * turns.sine[e],
                      x0 * turns.sine[e] + x1 * turns.cosine[e]);
        }
        part[u].store(at, y.at(b + u, h, w.n));
      }
    }
  }
}

template <class Layout, class Storage>
__global__ void __launch_bounds__(kPairThreads, 1)
    rotate_pairs_kernel(RotatePairsParams p, int64_t parts) {
  const Tokens& shape = p.shape;
  const int64_t item = int64_t(blockIdx.x) * kPairThreads + threadIdx.x;
  if (item >= shape.tokens * parts) return;
  const int64_t points = shape.tokens - shape.prefix;
  const int64_t slices = shape.per_sample ? shape.batch : gridDim.z;
  for (int64_t slice = blockIdx.z; slice < slices; slice += gridDim.z)
    for (int64_t r = blockIdx.y; r < shape.rotation_heads; r += gridDim.y) {
      const PairWork w(shape, parts, item, r, slice, slices);
      const Layout at(w.part, shape.head_dim, p.pairs, w.n >= shape.prefix);
      const int64_t here = (r * points + w.n - shape.prefix) * p.pairs + at.pair;
      const auto turns =
          turns_of(at, p.angles, offset_of_sample(shape, p.pairs, w.b0) + here, p.inverse);
      turn_rows(at, w, reads<Storage>(p.q), writes<Storage>(shape, p.q_out, shape.q_heads),
                shape.q_heads / shape.rotation_heads, turns);
      turn_rows(at, w, reads<Storage>(p.k), writes<Storage>(shape, p.k_out, shape.k_heads),
                shape.k_heads / shape.rotation_heads, turns);
    }
}

// x_grad = R^T y_grad; adds y0 y_grad1 - y1 y_grad0, the gradient of the angle.
template <class Layout, class Storage>
__device__ __forceinline__ void adjoint_rows(const Layout& at, const PairWork& w,
                                             const Rows<const Storage>& rotated,
                                             const Rows<const Storage>& grad,
                                             const Rows<Storage>& out, int64_t heads_each,
                                             const Turns<Compute<Storage>, Layout::kPairs>& turns,
                                             Compute<Storage> (&sum)[Layout::kPairs]) {
  using T = Compute<Storage>;
  constexpr int kAhead = 2;
  for (int64_t h = w.r * heads_each; h < (w.r + 1) * heads_each; ++h) {
    for (int64_t b = w.b0; b < w.b1; b += kAhead) {
      Part<Layout, Storage> g[kAhead], y[kAhead];
      LIEROPE_UNROLL
      for (int u = 0; u < kAhead; ++u) {
        if (b + u >= w.b1) continue;
        g[u].load(at, grad.at(b + u, h, w.n));
        y[u].load(at, rotated.at(b + u, h, w.n));
      }
      LIEROPE_UNROLL
      for (int u = 0; u < kAhead; ++u) {
        if (b + u >= w.b1) continue;
        LIEROPE_UNROLL
        for (int e = 0; e < Layout::kPairs; ++e) {
          const T g0 = widen(g[u].member(e, 0)), g1 = widen(g[u].member(e, 1));
          sum[e] += widen(y[u].member(e, 0)) * g1 - widen(y[u].member(e, 1)) * g0;
          g[u].set(at, e, g0 * turns.cosine[e] + g1 * turns.sine[e],
                   g1 * turns.cosine[e] - g0 * turns.sine[e]);
        }
        g[u].store(at, out.at(b + u, h, w.n));
      }
    }
  }
}

// sums: gradients of the angles, for each slice of the batch its own.
template <class Layout, class Storage>
__global__ void __launch_bounds__(kPairThreads, 1)
    rotate_pairs_backward_kernel(RotatePairsBackwardParams p, Compute<Storage>* sums,
                                 int64_t parts) {
  using T = Compute<Storage>;
  const Tokens& shape = p.shape;
  const int64_t item = int64_t(blockIdx.x) * kPairThreads + threadIdx.x;
  if (item >= shape.tokens * parts) return;
  const int64_t points = shape.tokens - shape.prefix;
  const int64_t slices = shape.per_sample ? shape.batch : gridDim.z;
  for (int64_t slice = blockIdx.z; slice < slices; slice += gridDim.z)
    for (int64_t r = blockIdx.y; r < shape.rotation_heads; r += gridDim.y) {
      const PairWork w(shape, parts, item, r, slice, slices);
      const Layout at(w.part, shape.head_dim, p.pairs, w.n >= shape.prefix);
      const int64_t here = (r * points + w.n - shape.prefix) * p.pairs + at.pair;
      const auto turns =
          turns_of(at, p.angles, offset_of_sample(shape, p.pairs, w.b0) + here, false);
      T sum[Layout::kPairs] = {};
      adjoint_rows(at, w, reads<Storage>(p.q_rotated), reads<Storage>(p.q_grad),
                   writes<Storage>(shape, p.q_out, shape.q_heads),
                   shape.q_heads / shape.rotation_heads, turns, sum);
      adjoint_rows(at, w, reads<Storage>(p.k_rotated), reads<Storage>(p.k_grad),
                   writes<Storage>(shape, p.k_out, shape.k_heads),
                   shape.k_heads / shape.rotation_heads, turns, sum);
      const int64_t out = slice * shape.rotation_heads * points * p.pairs + here;
      LIEROPE_UNROLL
      for (int e = 0; e < Layout::kPairs; ++e)
        if (e < at.turned) sums[out + e] = sum[e];
    }
}

// Calls f with the layout that fits the addresses, an element and the parts of a row.
template <class Params, class F>
void with_pair_layout(const Params& p, F&& f) {
  with_storage(p.shape.dtype, [&](auto element) {
    using Storage = decltype(element);
    constexpr int64_t size = sizeof(Storage);
    const bool wide = all_rows_aligned(p, size, 16) && (p.interleaved || p.pairs * size % 16 == 0);
    const auto call = [&]<class Layout>(std::type_identity<Layout> layout) {
      f(layout, element, Layout::parts(p.shape.head_dim, p.pairs));
    };
    if (p.interleaved && wide) return call(std::type_identity<PairLayout<Storage, true, true>>());
    if (p.interleaved) return call(std::type_identity<PairLayout<Storage, true, false>>());
    if (wide) return call(std::type_identity<PairLayout<Storage, false, true>>());
    call(std::type_identity<PairLayout<Storage, false, false>>());
  });
}

// Blocks for the parts of all tokens, for the rotation heads, and for slices of the batch.
inline dim3 pair_grid(const Tokens& shape, int64_t parts, const Launch& launch) {
  constexpr int64_t kMost = 65535;
  const int64_t heads = shape.rotation_heads < kMost ? shape.rotation_heads : kMost;
  const unsigned x = blocks_for(shape.tokens * parts, kPairThreads);
  const int64_t samples = shape.batch < kMost ? shape.batch : kMost;
  const int64_t z =
      shape.per_sample ? samples : slices_for(shape.batch, x * heads, kBlocksWanted, launch);
  return {x, unsigned(heads), unsigned(z)};
}

void rotate_pairs(const RotatePairsParams& p, const Launch& launch) {
  with_pair_layout(
      p, [&]<class Layout, class Storage>(std::type_identity<Layout>, Storage, int64_t parts) {
        LIEROPE_LAUNCH((rotate_pairs_kernel<Layout, Storage>), pair_grid(p.shape, parts, launch),
                       kPairThreads, 0, launch, p, parts);
      });
}

inline int64_t angle_count(const RotatePairsBackwardParams& p) {
  return p.shape.rotation_heads * (p.shape.tokens - p.shape.prefix) * p.pairs;
}

int64_t rotate_pairs_backward_workspace(const RotatePairsBackwardParams& p, const Launch& device) {
  int64_t bytes = 0;
  with_pair_layout(
      p, [&]<class Layout, class Storage>(std::type_identity<Layout>, Storage, int64_t parts) {
        const int64_t slices = p.shape.per_sample ? 1 : pair_grid(p.shape, parts, device).z;
        if (slices > 1) bytes = slices * angle_count(p) * int64_t(sizeof(Compute<Storage>));
      });
  return bytes;
}

void rotate_pairs_backward(const RotatePairsBackwardParams& p, const Launch& launch) {
  with_pair_layout(
      p, [&]<class Layout, class Storage>(std::type_identity<Layout>, Storage, int64_t parts) {
        using T = Compute<Storage>;
        const dim3 grid = pair_grid(p.shape, parts, launch);
        T* const out = static_cast<T*>(p.angles_out);
        const bool in_slices = !p.shape.per_sample && grid.z > 1;
        T* const sums = in_slices ? static_cast<T*>(launch.workspace) : out;
        LIEROPE_LAUNCH((rotate_pairs_backward_kernel<Layout, Storage>), grid, kPairThreads, 0,
                       launch, p, sums, parts);
        if (in_slices) launch_sum_slices(sums, out, angle_count(p), grid.z, launch);
      });
}

}  // namespace lierope::cuda
