// Gradients of generators and positions as sums in a fixed order: chunks of points each write their
// own, and a second pass adds them.
#pragma once
#include "../csrc/params/lie.h"
#include "partial_sums.cuh"

namespace lierope::cuda {

__host__ __device__ __forceinline__ int64_t packed_size(const Lie& lie) {
  return lie.block_size * (lie.block_size - 1) / 2;
}
__host__ __device__ __forceinline__ int64_t generators_size(const Lie& lie) {
  return lie.dims * lie.heads * lie.blocks * packed_size(lie);
}

// The sample of an item = sample * points + point, and the point. A 64-bit division would be a
// call, around which registers are saved in memory; items are below 2^53.
struct LieItem {
  int64_t sample, point;

  // per_point = 1 / points.
  __device__ __forceinline__ LieItem(int64_t item, int64_t points, double per_point)
      : sample(int64_t(double(item) * per_point)), point(item - sample * points) {
    if (point < 0) {
      point += points;
      --sample;
    }
    while (point >= points) {
      point -= points;
      ++sample;
    }
  }
};
inline double reciprocal(int64_t points) { return points > 0 ? 1.0 / double(points) : 0; }

// Where chunks and pairs (head, block) write.
template <class T>
struct LieSums {
  T* generators;  // (chunks, dims, heads, blocks, packed)
  T* lost;        // what rounding took from them so far, or null where chunks are short
  T* positions;   // (heads, blocks, samples, points, dims), or null when not wanted
};

// The workspace of a backward: the sums, then what matrices need.
template <class T>
struct LieWorkspace {
  int64_t generators, lost, positions, matrices;  // bytes, each a multiple of 256
  int64_t chunks;

  LieWorkspace(const Lie& lie, int64_t chunks_, bool long_chunks, bool wants_positions,
               int64_t matrices_bytes)
      : generators(chunks_ == 1 ? 0 : rounded(chunks_ * generators_size(lie) * kSize)),
        lost(long_chunks ? rounded(chunks_ * generators_size(lie) * kSize) : 0),
        positions(wants_positions ? rounded(lie.heads * lie.blocks * lie.samples * lie.points *
                                            lie.dims * kSize)
                                  : 0),
        matrices(rounded(matrices_bytes)),
        chunks(chunks_) {}

  int64_t bytes() const { return generators + lost + positions + matrices; }
  // A single chunk writes where the gradient goes.
  LieSums<T> sums(void* workspace, void* generators_out) const {
    char* p = static_cast<char*>(workspace);
    return {generators > 0 ? reinterpret_cast<T*>(p) : static_cast<T*>(generators_out),
            lost > 0 ? reinterpret_cast<T*>(p + generators) : nullptr,
            positions > 0 ? reinterpret_cast<T*>(p + generators + lost) : nullptr};
  }
  void* room(void* workspace) const {
    return static_cast<char*>(workspace) + (generators + lost + positions);
  }

 private:
  static constexpr int64_t kSize = int64_t(sizeof(T));
  static int64_t rounded(int64_t bytes) { return (bytes + 255) / 256 * 256; }
};

// Adds up the sums of all chunks and pairs.
template <class T>
void launch_lie_sums(const Lie& lie, const LieWorkspace<T>& workspace, void* generators_out,
                     void* positions_out, const Launch& launch) {
  const LieSums<T> sums = workspace.sums(launch.workspace, generators_out);
  if (workspace.chunks != 1)
    launch_sum_slices<T>(sums.generators, static_cast<T*>(generators_out), generators_size(lie),
                         workspace.chunks, launch);
  if (positions_out != nullptr)
    launch_sum_slices<T>(sums.positions, static_cast<T*>(positions_out),
                         lie.samples * lie.points * lie.dims, lie.heads * lie.blocks, launch);
}

}  // namespace lierope::cuda
