// Matrices of consecutive threads, contiguous in memory, through slots of shared memory: global
// accesses are coalesced, 16 bytes each where the address allows.
#pragma once
#include <type_traits>

#include "block_tiles.cuh"

namespace lierope::cuda {

inline constexpr int kMatrixThreads = 128;  // of a block in which each has a matrix

// Blocks a multiprocessor should hold: how many registers a thread may have follows.
template <class T, int N>
inline constexpr int kThreadOccupancy = N <= 3                     ? 8
                                        : N == 4 && sizeof(T) == 4 ? 4
                                                                   : 2;

// How many matrices a block has of those from `first` on.
__device__ __forceinline__ int matrices_left(int64_t count, int64_t first) {
  const int64_t left = count - first;
  return left < kMatrixThreads ? int(left) : kMatrixThreads;
}

template <class T, int N>
struct MatrixSlots {
  static constexpr int size = N * N, vector = int(16 / sizeof(T));
  static constexpr int piece = size % vector == 0 ? vector : 1;
  // Eight threads' pieces fall into different banks, for sizes that are powers of two.
  static constexpr int slot = piece > 1 ? size + piece : size;
  static constexpr int64_t bytes = int64_t(sizeof(T)) * slot * kMatrixThreads;
};

template <class T>
__device__ __forceinline__ bool is_aligned(const T* p) {
  return reinterpret_cast<uintptr_t>(p) % 16 == 0;
}

// f(to_slot, in_memory) for every piece of `count` matrices, spread over the block.
template <class T, int N, int piece, class F>
__device__ __forceinline__ void each_piece(int count, F f) {
  using Slots = MatrixSlots<T, N>;
  constexpr int pieces = Slots::size / piece;
  for (int i = int(threadIdx.x); i < count * pieces; i += kMatrixThreads)
    f(i / pieces * Slots::slot + i % pieces * piece, i * piece);
}

template <int N, class T>
__device__ __forceinline__ void stage_in(T* slots, const T* from, int count) {
  constexpr int piece = MatrixSlots<T, N>::piece;
  if (is_aligned(from)) {
    each_piece<T, N, piece>(count, [&](int slot, int at) {
      T x[piece];
      load_numbers<piece>(x, from + at);
      store_numbers<piece>(slots + slot, x);
    });
  } else {
    each_piece<T, N, 1>(count, [&](int slot, int at) { slots[slot] = from[at]; });
  }
}

// The matrix of thread t from `from` + places[t]; none where that is negative.
template <int N, class T>
__device__ __forceinline__ void stage_in_from(T* slots, const T* from, const int64_t* places) {
  using Slots = MatrixSlots<T, N>;
  const auto piece_of = [&](auto piece) {
    constexpr int pieces = Slots::size / piece;
    for (int i = int(threadIdx.x); i < kMatrixThreads * pieces; i += kMatrixThreads) {
      const int64_t place = places[i / pieces];
      if (place < 0) continue;
      T x[piece];
      load_numbers<piece>(x, from + place + i % pieces * piece);
      store_numbers<piece>(slots + i / pieces * Slots::slot + i % pieces * piece, x);
    }
  };
  if (is_aligned(from))
    piece_of(std::integral_constant<int, Slots::piece>{});
  else
    piece_of(std::integral_constant<int, 1>{});
}

template <int N, class T>
__device__ __forceinline__ void stage_out(const T* slots, T* to, int count) {
  constexpr int piece = MatrixSlots<T, N>::piece;
  if (is_aligned(to)) {
    each_piece<T, N, piece>(count, [&](int slot, int at) {
      T x[piece];
      load_numbers<piece>(x, slots + slot);
      store_numbers<piece>(to + at, x);
    });
  } else {
    each_piece<T, N, 1>(count, [&](int slot, int at) { to[at] = slots[slot]; });
  }
}

// This thread's slot.
template <int N, class T>
__device__ __forceinline__ T* own_slot(T* slots) {
  return slots + int(threadIdx.x) * MatrixSlots<T, N>::slot;
}
template <int N, class T>
__device__ __forceinline__ void read_slot(const T* slot, T* matrix) {
  constexpr int piece = MatrixSlots<T, N>::piece;
  LIEROPE_UNROLL
  for (int e = 0; e < N * N; e += piece) load_numbers<piece>(matrix + e, slot + e);
}
template <int N, class T>
__device__ __forceinline__ void write_slot(T* slot, const T* matrix) {
  constexpr int piece = MatrixSlots<T, N>::piece;
  LIEROPE_UNROLL
  for (int e = 0; e < N * N; e += piece) store_numbers<piece>(slot + e, matrix + e);
}

}  // namespace lierope::cuda
