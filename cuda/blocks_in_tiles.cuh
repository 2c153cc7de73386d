// rotate_blocks for blocks of any size: products of a rotation and many rows, and of two sets of
// rows, in tiles that pass through shared memory.
#pragma once
#include "../csrc/params/rotate_blocks.h"
#include "rows.cuh"

namespace lierope::cuda {

constexpr int kTileThreads = 64, kTileSide = 8;  // 8 x 8 threads
constexpr int kTileDepth = 16;                   // of the sum, at a time

// acc += a b^T over the tile's depth; a and b lie in shared memory depth first.
template <class T, int A, int B>
struct TileSum {
  static constexpr int kA = A / kTileSide, kB = B / kTileSide;  // of one thread
  T acc[kA][kB] = {};

  // Which kA of the A and kB of the B this thread has begin here.
  static __device__ __forceinline__ int first_a() { return int(threadIdx.x) / kTileSide * kA; }
  static __device__ __forceinline__ int first_b() { return int(threadIdx.x) % kTileSide * kB; }

  __device__ __forceinline__ void add(const T* a, const T* b) {
    LIEROPE_ROLLED
    for (int d = 0; d < kTileDepth; ++d) {
      Run<T, kA, true> x;
      Run<T, kB, true> y;
      x.load(a + d * A + first_a());
      y.load(b + d * B + first_b());
      LIEROPE_UNROLL
      for (int i = 0; i < kA; ++i) {
        LIEROPE_UNROLL
        for (int j = 0; j < kB; ++j) acc[i][j] += x.v[i] * y.v[j];
      }
    }
  }
};

// The rows of q and k that one rotation turns, one after the other: batch, then heads.
struct SharedRows {
  int64_t b0, batch, q_each, k_each, r, n;

  __device__ __forceinline__ SharedRows(const Tokens& shape, int64_t sample, int64_t r_, int64_t n_)
      : b0(shape.per_sample ? sample : 0),
        batch(shape.per_sample ? 1 : shape.batch),
        q_each(shape.q_heads / shape.rotation_heads),
        k_each(shape.k_heads / shape.rotation_heads),
        r(r_),
        n(n_) {}
  __device__ __forceinline__ int64_t count() const { return batch * (q_each + k_each); }

  template <class AnyRows>
  __device__ __forceinline__ auto* at(int64_t i, const AnyRows& q, const AnyRows& k) const {
    const int64_t of_q = batch * q_each;
    if (i < of_q) return q.at(b0 + i / q_each, r * q_each + i % q_each, n);
    return k.at(b0 + (i - of_q) / k_each, r * k_each + (i - of_q) % k_each, n);
  }
};

// What a block of threads does: rotation (sample, r, n, g) and tile `tile` of its result.
struct TileWork {
  int64_t tile, g, point, offset;

  __device__ __forceinline__ TileWork(const Tokens& shape, int64_t index, int64_t tiles,
                                      int64_t blocks, int64_t b, int64_t r, int64_t sample)
      : tile(index % tiles), g(index / tiles % blocks), point(index / tiles / blocks) {
    const int64_t points = shape.tokens - shape.prefix;
    offset = (((sample * shape.rotation_heads + r) * points + point) * blocks + g) * b * b;
  }
};

// Reads entries [first, first + count) of kTileDepth rows into shared memory, 0 where there is
// none.
template <class T, int count, class Load>
__device__ __forceinline__ void stage(T* to, Load&& load) {
  for (int e = int(threadIdx.x); e < kTileDepth * count; e += kTileThreads)
    to[e] = load(e / count, e % count);
}

// y = R x (or R^T x): tile of I features and J rows, over all rows.
template <class Storage, int I, int J>
__device__ __forceinline__ void turn_tile(const RotateBlocksParams& p, const TileWork& w,
                                          const SharedRows& rows) {
  using T = Compute<Storage>;
  LIEROPE_SHARED(T, r_tile, kTileDepth * I);
  LIEROPE_SHARED(T, x_tile, kTileDepth * J);
  LIEROPE_SHARED(const Storage*, from, J);
  LIEROPE_SHARED(Storage*, to, J);
  const int64_t b = p.block_size, first_i = w.tile * I;
  const T* const rotation = static_cast<const T*>(p.rotations) + w.offset;
  for (int64_t first = 0; first < rows.count(); first += J) {
    const int count = rows.count() - first < J ? int(rows.count() - first) : J;
    for (int i = int(threadIdx.x); i < count; i += kTileThreads) {
      from[i] = rows.at(first + i, reads<Storage>(p.q), reads<Storage>(p.k)) + w.g * b;
      to[i] = rows.at(first + i, writes<Storage>(p.shape, p.q_out, p.shape.q_heads),
                      writes<Storage>(p.shape, p.k_out, p.shape.k_heads)) +
              w.g * b;
    }
    __syncthreads();
    TileSum<T, I, J> sum;
    for (int64_t first_d = 0; first_d < b; first_d += kTileDepth) {
      for (int e = int(threadIdx.x); e < kTileDepth * I; e += kTileThreads) {
        const int d = p.transpose ? e / I : e % kTileDepth,
                  i = p.transpose ? e % I : e / kTileDepth;
        const bool there = first_i + i < b && first_d + d < b;
        const int64_t at =
            p.transpose ? (first_d + d) * b + first_i + i : (first_i + i) * b + first_d + d;
        r_tile[d * I + i] = there ? rotation[at] : T(0);
      }
      for (int e = int(threadIdx.x); e < kTileDepth * J; e += kTileThreads) {
        const int d = e % kTileDepth, j = e / kTileDepth;
        x_tile[d * J + j] = j < count && first_d + d < b ? widen(from[j][first_d + d]) : T(0);
      }
      __syncthreads();
      sum.add(r_tile, x_tile);
      __syncthreads();
    }
    LIEROPE_UNROLL
    for (int j = 0; j < sum.kB; ++j) {
      if (sum.first_b() + j >= count) continue;
      Storage* const row = to[sum.first_b() + j];
      LIEROPE_UNROLL
      for (int i = 0; i < sum.kA; ++i) {
        const int64_t at = first_i + sum.first_a() + i;
        if (at < b) row[at] = narrow<Storage>(sum.acc[i][j]);
      }
    }
    __syncthreads();
  }
}

// out = the sum over all rows of y_grad x^T: one tile of I x I.
template <class Storage, int I>
__device__ __forceinline__ void outer_tile(const RotateBlocksBackwardParams& p, const TileWork& w,
                                           const SharedRows& rows, int64_t tiles) {
  using T = Compute<Storage>;
  LIEROPE_SHARED(T, g_tile, kTileDepth * I);
  LIEROPE_SHARED(T, x_tile, kTileDepth * I);
  const int64_t b = p.block_size, first_i = w.tile / tiles * I, first_j = w.tile % tiles * I;
  TileSum<T, I, I> sum;
  for (int64_t first = 0; first < rows.count(); first += kTileDepth) {
    for (int e = int(threadIdx.x); e < kTileDepth * I; e += kTileThreads) {
      const int d = e / I, i = e % I;
      const bool there = first + d < rows.count();
      const int64_t row = there ? first + d : 0, at_i = first_i + i, at_j = first_j + i;
      const Storage* g = rows.at(row, reads<Storage>(p.q_grad), reads<Storage>(p.k_grad));
      const Storage* x = rows.at(row, reads<Storage>(p.q), reads<Storage>(p.k));
      g_tile[e] = there && at_i < b ? widen(g[w.g * b + at_i]) : T(0);
      x_tile[e] = there && at_j < b ? widen(x[w.g * b + at_j]) : T(0);
    }
    __syncthreads();
    sum.add(g_tile, x_tile);
    __syncthreads();
  }
  T* const out = static_cast<T*>(p.rotations_out) + w.offset;
  LIEROPE_UNROLL
  for (int i = 0; i < sum.kA; ++i) {
    LIEROPE_UNROLL
    for (int j = 0; j < sum.kB; ++j) {
      const int64_t at_i = first_i + sum.first_a() + i, at_j = first_j + sum.first_b() + j;
      if (at_i < b && at_j < b) out[at_i * b + at_j] = sum.acc[i][j];
    }
  }
}

// Calls f for every (tile, rotation) that is this block's: x counts tiles, blocks of features and
// tokens, y heads, z samples.
template <class F>
__device__ __forceinline__ void for_tile_work(const Tokens& shape, int64_t tiles, int64_t blocks,
                                              int64_t b, F&& f) {
  const int64_t count = (shape.tokens - shape.prefix) * blocks * tiles;
  const int64_t samples = shape.per_sample ? shape.batch : 1;
  for (int64_t sample = blockIdx.z; sample < samples; sample += gridDim.z)
    for (int64_t r = blockIdx.y; r < shape.rotation_heads; r += gridDim.y)
      for (int64_t index = blockIdx.x; index < count; index += gridDim.x) {
        const TileWork w(shape, index, tiles, blocks, b, r, sample);
        f(w, SharedRows(shape, sample, r, shape.prefix + w.point));
      }
}

template <class Storage, int I, int J>
__global__ void __launch_bounds__(kTileThreads, 1) blocks_in_tiles(RotateBlocksParams p) {
  const int64_t tiles = (p.block_size + I - 1) / I;
  for_tile_work(
      p.shape, tiles, p.blocks, p.block_size,
      [&](const TileWork& w, const SharedRows& rows) { turn_tile<Storage, I, J>(p, w, rows); });
}

template <class Storage, int I>
__global__ void __launch_bounds__(kTileThreads, 1)
    outer_products_in_tiles(RotateBlocksBackwardParams p) {
  const int64_t tiles = (p.block_size + I - 1) / I;
  for_tile_work(p.shape, tiles * tiles, p.blocks, p.block_size,
                [&](const TileWork& w, const SharedRows& rows) {
                  outer_tile<Storage, I>(p, w, rows, tiles);
                });
}

inline dim3 tile_grid(const Tokens& shape, int64_t blocks, int64_t tiles) {
  constexpr int64_t kMost = 65535;
  const int64_t samples = shape.per_sample ? shape.batch : 1, heads = shape.rotation_heads;
  return {blocks_for((shape.tokens - shape.prefix) * blocks * tiles, 1),
          unsigned(heads < kMost ? heads : kMost), unsigned(samples < kMost ? samples : kMost)};
}

template <class Storage>
void launch_blocks_in_tiles(const RotateBlocksParams& p, const Launch& launch) {
  const bool small = p.block_size <= 16;
  const dim3 grid = tile_grid(p.shape, p.blocks, (p.block_size + 31) / 32);
  if (small)
    LIEROPE_LAUNCH((blocks_in_tiles<Storage, 16, 64>), grid, kTileThreads, 0, launch, p);
  else
    LIEROPE_LAUNCH((blocks_in_tiles<Storage, 32, 32>), grid, kTileThreads, 0, launch, p);
  const int64_t rotated = p.blocks * p.block_size;
  launch_copy_unrotated<Storage>(p.q, p.q_out, p.shape, p.shape.q_heads, rotated, launch);
  launch_copy_unrotated<Storage>(p.k, p.k_out, p.shape, p.shape.k_heads, rotated, launch);
}

template <class Storage>
void launch_outer_products(const RotateBlocksBackwardParams& p, const Launch& launch) {
  const int64_t tiles = (p.block_size + 31) / 32;
  const dim3 grid = tile_grid(p.shape, p.blocks, tiles * tiles);
  if (p.block_size <= 16)
    LIEROPE_LAUNCH((outer_products_in_tiles<Storage, 16>), grid, kTileThreads, 0, launch, p);
  else
    LIEROPE_LAUNCH((outer_products_in_tiles<Storage, 32>), grid, kTileThreads, 0, launch, p);
}

}  // namespace lierope::cuda
