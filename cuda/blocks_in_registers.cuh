// rotate_blocks for blocks of 2, 4 and 8 features: a thread keeps one rotation in registers and
// turns the same features of the whole batch with it.
#pragma once
#include "../csrc/params/rotate_blocks.h"
#include "partial_sums.cuh"
#include "rows.cuh"

namespace lierope::cuda {

constexpr int kBlockThreads = 128;
constexpr int kItems = 32;  // of a block of threads in the backward, whose warps split the batch

// Rotation r at token n, and the batch elements [b0, b1) that a thread turns with it.
struct BlockWork {
  int64_t n, g, r, b0, b1;
  bool rotate;

  __device__ __forceinline__ BlockWork(const Tokens& shape, int64_t blocks, int64_t item,
                                       int64_t r_, int64_t slice, int64_t slices)
      : n(item / blocks), g(item % blocks), r(r_), rotate(n >= shape.prefix) {
    b0 = shape.per_sample ? slice : shape.batch * slice / slices;
    b1 = shape.per_sample ? slice + 1 : shape.batch * (slice + 1) / slices;
  }
  // Of the rotation in a ([B,] heads, M, G, b, b) tensor.
  __device__ __forceinline__ int64_t offset(const Tokens& shape, int64_t blocks, int b,
                                            int64_t sample) const {
    const int64_t points = shape.tokens - shape.prefix;
    return (((sample * shape.rotation_heads + r) * points + n - shape.prefix) * blocks + g) * b * b;
  }
};

template <class Storage, int b, bool wide>
struct Rotation {
  using T = Compute<Storage>;
  T at[b][b];

  __device__ __forceinline__ void load(const T* from, bool transpose) {
    Run<T, b * b, wide> run;
    run.load(from);
    LIEROPE_UNROLL
    for (int i = 0; i < b; ++i) {
      LIEROPE_UNROLL
      for (int j = 0; j < b; ++j) at[i][j] = transpose ? run.v[j * b + i] : run.v[i * b + j];
    }
  }
  __device__ __forceinline__ void turn(Run<Storage, b, wide>& x) const {
    T in[b];
    LIEROPE_UNROLL
    for (int j = 0; j < b; ++j) in[j] = widen(x.v[j]);
    LIEROPE_UNROLL
    for (int i = 0; i < b; ++i) {
      T sum = at[i][0] * in[0];
      LIEROPE_UNROLL
      for (int j = 1; j < b; ++j) sum += at[i][j] * in[j];
      x.v[i] = narrow<Storage>(sum);
    }
  }
};

template <class Storage, int b, bool wide>
__device__ __forceinline__ void turn_blocks(const BlockWork& w, const Rows<const Storage>& x,
                                            const Rows<Storage>& y, int64_t heads_each,
                                            const Rotation<Storage, b, wide>& rotation) {
  constexpr int kAhead = 4;  // rows asked for before the first is used
  for (int64_t h = w.r * heads_each; h < (w.r + 1) * heads_each; ++h)
    for (int64_t first = w.b0; first < w.b1; first += kAhead) {
      Run<Storage, b, wide> run[kAhead];
      LIEROPE_UNROLL
      for (int u = 0; u < kAhead; ++u)
        if (first + u < w.b1) run[u].load(x.at(first + u, h, w.n) + w.g * b);
      LIEROPE_UNROLL
      for (int u = 0; u < kAhead; ++u) {
        if (first + u >= w.b1) continue;
        if (w.rotate) rotation.turn(run[u]);
        run[u].store(y.at(first + u, h, w.n) + w.g * b);
      }
    }
}

template <class Storage, int b, bool wide>
__global__ void __launch_bounds__(kBlockThreads, 1) blocks_in_registers(RotateBlocksParams p) {
  using T = Compute<Storage>;
  const Tokens& shape = p.shape;
  const int64_t item = int64_t(blockIdx.x) * kBlockThreads + threadIdx.x;
  if (item >= shape.tokens * p.blocks) return;
  const int64_t slices = shape.per_sample ? shape.batch : gridDim.z;
  for (int64_t slice = blockIdx.z; slice < slices; slice += gridDim.z)
    for (int64_t r = blockIdx.y; r < shape.rotation_heads; r += gridDim.y) {
      const BlockWork w(shape, p.blocks, item, r, slice, slices);
      Rotation<Storage, b, wide> rotation;
      if (w.rotate)
        rotation.load(static_cast<const T*>(p.rotations) +
                          w.offset(shape, p.blocks, b, shape.per_sample ? slice : 0),
                      p.transpose);
      turn_blocks(w, reads<Storage>(p.q), writes<Storage>(shape, p.q_out, shape.q_heads),
                  shape.q_heads / shape.rotation_heads, rotation);
      turn_blocks(w, reads<Storage>(p.k), writes<Storage>(shape, p.k_out, shape.k_heads),
                  shape.k_heads / shape.rotation_heads, rotation);
    }
}

// x_grad = R^T y_grad; sum += y_grad x^T, the gradient of R.
template <class Storage, int b, bool wide>
__device__ __forceinline__ void adjoint_blocks(const BlockWork& w, const Rows<const Storage>& x,
                                               const Rows<const Storage>& grad,
                                               const Rows<Storage>& out, int64_t heads_each,
                                               const Rotation<Storage, b, wide>& transposed,
                                               Compute<Storage> (&sum)[b * b]) {
  for (int64_t h = w.r * heads_each; h < (w.r + 1) * heads_each; ++h)
    for (int64_t i = w.b0; i < w.b1; ++i) {
      Run<Storage, b, wide> g, in;
      g.load(grad.at(i, h, w.n) + w.g * b);
      if (w.rotate) {
        in.load(x.at(i, h, w.n) + w.g * b);
        LIEROPE_UNROLL
        for (int e = 0; e < b * b; ++e) sum[e] += widen(g.v[e / b]) * widen(in.v[e % b]);
        transposed.turn(g);
      }
      g.store(out.at(i, h, w.n) + w.g * b);
    }
}

// A block of threads has kItems rotations; its warps (blockDim.y) split its slice of the batch and
// add their sums in order. sums: gradients of the rotations, for each slice its own.
template <class Storage, int b, bool wide>
__global__ void __launch_bounds__(kBlockThreads, 1)
    blocks_in_registers_backward(RotateBlocksBackwardParams p, Compute<Storage>* sums) {
  using T = Compute<Storage>;
  LIEROPE_DYNAMIC_SHARED(T, of_warps);  // (warps - 1, b * b, kItems)
  const Tokens& shape = p.shape;
  const int64_t item = int64_t(blockIdx.x) * kItems + threadIdx.x;
  const bool active = item < shape.tokens * p.blocks;
  const int warp = int(threadIdx.y), warps = int(blockDim.y);
  const int64_t slices = shape.per_sample ? shape.batch : gridDim.z;
  for (int64_t slice = blockIdx.z; slice < slices; slice += gridDim.z)
    for (int64_t r = blockIdx.y; r < shape.rotation_heads; r += gridDim.y) {
      const int64_t part = shape.per_sample ? slice : slice * warps + warp;
      const BlockWork w(shape, p.blocks, active ? item : 0, r, part, slices * warps);
      T sum[b * b] = {};
      if (active) {
        Rotation<Storage, b, wide> transposed;
        if (w.rotate)
          transposed.load(static_cast<const T*>(p.rotations) +
                              w.offset(shape, p.blocks, b, shape.per_sample ? slice : 0),
                          true);
        adjoint_blocks(w, reads<Storage>(p.q), reads<Storage>(p.q_grad),
                       writes<Storage>(shape, p.q_out, shape.q_heads),
                       shape.q_heads / shape.rotation_heads, transposed, sum);
        adjoint_blocks(w, reads<Storage>(p.k), reads<Storage>(p.k_grad),
                       writes<Storage>(shape, p.k_out, shape.k_heads),
                       shape.k_heads / shape.rotation_heads, transposed, sum);
      }
      T* const mine = of_warps + (warp - 1) * b * b * kItems + threadIdx.x;
      if (warp > 0) {
        LIEROPE_UNROLL
        for (int e = 0; e < b * b; ++e) mine[e * kItems] = sum[e];
      }
      __syncthreads();
      if (warp == 0 && active && w.rotate) {
        for (int other = 1; other < warps; ++other) {
          const T* const theirs = of_warps + (other - 1) * b * b * kItems + threadIdx.x;
          LIEROPE_UNROLL
          for (int e = 0; e < b * b; ++e) sum[e] += theirs[e * kItems];
        }
        Run<T, b * b, wide> out;
        LIEROPE_UNROLL
        for (int e = 0; e < b * b; ++e) out.v[e] = sum[e];
        out.store(sums + w.offset(shape, p.blocks, b, slice));
      }
      __syncthreads();
    }
}

}  // namespace lierope::cuda
