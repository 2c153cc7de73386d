// How many threads, matrices and bytes a block of shared matrices takes, and what lies where in it.
#pragma once
#include <type_traits>

#include "block_exponential.cuh"

namespace lierope::cuda {

// Threads of a block at most, and blocks that a multiprocessor should hold: how many registers a
// thread may have follows.
template <class T, int TS>
inline constexpr int kBlockThreads = sizeof(T) == 4 && TS == 4 ? 64 : 256;
template <class T, int TS>
inline constexpr int kBlockOccupancy = sizeof(T) == 4 && TS == 4 ? 8 : 1;

// The same number, but the compiler does not know: addresses that depend on it are computed anew
// where they are used, rather than kept in registers that products need.
__device__ __forceinline__ int forgotten(int x) {
#if !defined(LIEROPE_EMULATED)
  asm volatile("" : "+r"(x));
#endif
  return x;
}

template <class T, int TS>
struct BlockPlan {
  static constexpr int kTile = TS;
  int n, matrices;  // of a block
  int buffers;      // of a matrix
  T* workspace;     // where kInWorkspace; else null

  BlockPlan(int64_t n_, int buffers_, void* workspace_)
      : n(int(n_)),
        matrices(per_matrix() < 64 ? 64 / per_matrix() : 1),
        buffers(buffers_),
        workspace(static_cast<T*>(workspace_)) {}

  __host__ __device__ int tiles() const { return (n + TS - 1) / TS; }
  __host__ __device__ int per_matrix() const { return tiles() * tiles(); }
  __host__ __device__ int sums() const { return per_matrix() + tiles(); }
  __host__ __device__ int64_t buffer() const { return Tiles<T, TS>::buffer_size(n); }
  int threads() const { return matrices * per_matrix(); }
  int64_t shared_bytes() const {
    const int64_t numbers = sums() + (kInWorkspace<T, TS> ? 0 : buffers * buffer());
    return matrices * (numbers * int64_t(sizeof(T)) + 4);
  }
  __host__ __device__ int64_t workspace_each() const {
    constexpr int64_t kept = kKeptHalves * Tiles<T, TS>::kHalf + TS * TS;
    return buffers * buffer() + kept * per_matrix();
  }
  // Blocks that run at once where each needs a workspace; as many as there are items where none do.
  unsigned grid(int64_t items, const Launch& device) const {
    const unsigned blocks = blocks_for(items, matrices);
    const unsigned most = unsigned(device.multiprocessors);
    return kInWorkspace<T, TS> && blocks > most ? most : blocks;
  }
  int64_t workspace_bytes(int64_t items, const Launch& device) const {
    if (!kInWorkspace<T, TS>) return 0;
    return int64_t(grid(items, device)) * workspace_each() * int64_t(sizeof(T));
  }

  // What this thread needs for one exponential or adjoint, computed anew at each call: all of it
  // where products take the registers, its index alone where they lie in a workspace.
  __device__ __forceinline__ BlockExponential<T, TS> matrix(T* shared) const {
    BlockPlan plan = *this;
    if constexpr (!kInWorkspace<T, TS>) plan.n = forgotten(n);
    const int thread = forgotten(int(threadIdx.x)), each = plan.per_matrix();
    return {Tiles<T, TS>(plan.n, thread % each), plan.room(shared, thread / each)};
  }

 private:
  // Buffer i of a matrix is `first` + i buffer().
  __device__ __forceinline__ BlockRoom<T> room(T* shared, int matrix) const {
    BlockRoom<T> room{};
    T* sums_begin = shared;
    if constexpr (kInWorkspace<T, TS>) {
      room.first = workspace + int64_t(blockIdx.x) * workspace_each();
      room.kept = room.first + buffers * buffer();
    } else {
      room.first = shared + matrix * buffers * buffer();
      sums_begin = shared + matrices * buffers * buffer();
    }
    room.second = room.first + buffer();
    room.sums = sums_begin + matrix * sums();
    room.counts = reinterpret_cast<int*>(sums_begin + matrices * sums());
    room.matrix = matrix;
    room.matrices = matrices;
    return room;
  }
};

// f(i, j) for every i < rows, j < columns, spread over the threads of a matrix; neighbours have
// neighbouring columns. Loads of `ahead` of them may be under way together.
template <int ahead = 1, class T, int TS, class F>
__device__ __forceinline__ void each_element(const Tiles<T, TS>& at, int rows, int columns, F f) {
  const int down = at.threads / columns, right = at.threads % columns;
  int i = at.thread / columns, j = at.thread % columns;
  const int count = (rows * columns - at.thread + at.threads - 1) / at.threads;
  LIEROPE_UNROLL_BY(ahead)
  for (int step = 0; step < count; ++step) {
    f(i, j);
    i += down;
    j += right;
    if (j >= columns) {
      j -= columns;
      ++i;
    }
  }
}

// A matrix of side n, contiguous in memory, from a buffer.
template <class T, int TS>
__device__ __forceinline__ void read_square(const Tiles<T, TS>& at, const T* buffer, T* out) {
  each_element(at, at.n, at.n,
               [&](int i, int j) { out[int64_t(i) * at.n + j] = buffer[i * at.stride + j]; });
}

// run(index, wanted) for the matrices of a block, out of `count`: as many at a time as the block
// holds, the last of all once more where there are too few; it is then not wanted.
template <class T, int TS, class Run>
__device__ __forceinline__ void each_matrix(const BlockPlan<T, TS>& plan, int64_t count, Run run) {
  const auto at = [&](int64_t first) {
    const int64_t mine = first + int(threadIdx.x) / plan.per_matrix();
    run(mine < count ? mine : count - 1, mine < count);
  };
  int64_t first = int64_t(blockIdx.x) * plan.matrices;
  if constexpr (kInWorkspace<T, TS>) {
    LIEROPE_ROLLED
    for (; first < count; first += gridDim.x) {
      at(first);
      __syncthreads();
    }
  } else {
    at(first);
  }
}

// out = factor times the skew matrix whose entries above the diagonal are value(i, j).
template <class T, int TS, class Value>
__device__ __forceinline__ void fill_skew(const Tiles<T, TS>& at, T* out, T factor, Value value) {
  each_element(at, at.side, at.side, [&](int i, int j) {
    if (j < i) return;
    const T x = i < j && j < at.n ? factor * value(i, j) : T(0);
    out[i * at.stride + j] = x;
    out[j * at.stride + i] = i < j ? -x : T(0);
  });
}

}  // namespace lierope::cuda
