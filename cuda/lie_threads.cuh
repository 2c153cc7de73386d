// Blocks that one thread holds: A from generators and a position, and the gradients of both from
// that of A, summed over the points of a CUDA block in shared memory.
#pragma once
#include "exponential_sides.cuh"
#include "lie_sums.cuh"
#include "thread_staging.cuh"

namespace lierope::cuda {

// a = sign sum_c p_c A_c. u: generators of this head and block, `step` to the next coordinate's.
template <int N, class T>
__device__ __forceinline__ void contract(const T* u, int64_t step, const T* p, int64_t dims, T sign,
                                         T* a) {
  constexpr int size = kTriangle<N>;
  constexpr int piece = size % 4 == 0 && sizeof(T) == 4 ? 4 : size % 2 == 0 && size > 0 ? 2 : 1;
  LIEROPE_EACH(t, 0, size) a[t] = 0;
  const bool wide = reinterpret_cast<uintptr_t>(u) % (piece * sizeof(T)) == 0;
  for (int64_t c = 0; c < dims; ++c, u += step) {
    const T x = sign * p[c];
    if (wide) {
      LIEROPE_UNROLL
      for (int t = 0; t < size; t += piece) {
        T entries[piece];
        load_numbers<piece>(entries, u + t);
        LIEROPE_EACH(i, 0, piece) a[t + i] += x * entries[i];
      }
    } else {
      LIEROPE_EACH(t, 0, size) a[t] += x * u[t];
    }
  }
}

// How the threads of a CUDA block share the rotations of one head: `columns` blocks side by side of
// `points` items, and the rows that each turns cut into `slices`.
struct LieThreads {
  int columns, points, slices;
  int64_t column_chunks;
  int64_t items, each, chunks;  // each: items of a chunk, a multiple of `points`
  double per_point;             // 1 / lie.points

  // Cuts the items so that about `wanted` blocks come out.
  LieThreads(const Lie& lie, int slices_, int64_t wanted)
      : slices(slices_), items(lie.samples * lie.points), per_point(reciprocal(lie.points)) {
    const int64_t room = kMatrixThreads / slices;
    column_chunks = (lie.blocks + room - 1) / room;
    columns = column_chunks > 0 ? int((lie.blocks + column_chunks - 1) / column_chunks) : 1;
    points = int(room / columns);
    const int64_t groups = (items + points - 1) / points, rows = lie.heads * column_chunks;
    int64_t cut = rows > 0 ? (wanted + rows - 1) / rows : 1;
    cut = cut < 1 ? 1 : cut > groups ? groups : cut;
    each = groups > 0 ? (groups + cut - 1) / cut * points : points;
    chunks = (items + each - 1) / each;
  }
  unsigned grid(const Lie& lie) const { return blocks_for(lie.heads * column_chunks * chunks, 1); }
};

// Where a thread stands.
struct LieThread {
  int slice, column, point, local;  // local: of its slice
  int64_t head, block, chunk, first, last;

  __device__ __forceinline__ LieThread(const LieThreads& plan, const Lie& lie) {
    const int per_slice = plan.columns * plan.points, thread = int(threadIdx.x);
    slice = thread / per_slice;
    local = thread % per_slice;
    column = local % plan.columns;
    point = local / plan.columns;
    const unsigned heads = unsigned(lie.heads), column_chunks = unsigned(plan.column_chunks);
    const unsigned row = blockIdx.x / heads;
    head = blockIdx.x % heads;
    block = int64_t(row % column_chunks) * plan.columns + column;
    chunk = row / column_chunks;
    first = chunk * plan.each;
    last = first + plan.each < plan.items ? first + plan.each : plan.items;
  }
  // Whether it has a rotation at this item of its own.
  __device__ __forceinline__ bool has(const LieThreads& plan, const Lie& lie, int64_t item) const {
    return slice < plan.slices && block < lie.blocks && item < last;
  }
};

template <class T>
__device__ __forceinline__ const T* generators_of(const Lie& lie, int64_t head, int64_t block) {
  return static_cast<const T*>(lie.generators) + (head * lie.blocks + block) * packed_size(lie);
}
template <class T>
__device__ __forceinline__ const T* position_of(const Lie& lie, int64_t item) {
  return static_cast<const T*>(lie.positions) + item * lie.dims;
}

// <A_c, 2 Abar> for the position of one rotation.
template <int N, class T>
__device__ __forceinline__ void write_position_gradient(const Lie& lie, const LieSums<T>& sums,
                                                        const LieThread& at, int64_t item,
                                                        const T* abar) {
  if (sums.positions == nullptr) return;
  const T* u = generators_of<T>(lie, at.head, at.block);
  const int64_t pair = at.head * lie.blocks + at.block,
                step = lie.heads * lie.blocks * kTriangle<N>;
  T* out = sums.positions + (pair * lie.samples * lie.points + item) * lie.dims;
  for (int64_t c = 0; c < lie.dims; ++c, u += step) {
    T dot = 0;
    LIEROPE_EACH(t, 0, kTriangle<N>) dot += u[t] * abar[t];
    out[c] = dot;
  }
}

// Adds p_c 2 Abar of the items from `item` on to the generators' sums of the chunk; `slots` holds
// 2 Abar of thread `local` at local * slot.
template <int N, class T>
__device__ __forceinline__ void add_generator_gradients(const LieThreads& plan, const Lie& lie,
                                                        const LieSums<T>& sums, const LieThread& at,
                                                        int64_t item, const T* slots, int slot) {
  constexpr int size = kTriangle<N>;
  if constexpr (size > 0) {
    const int64_t left = at.last - item, first_block = at.block - at.column;
    const int count = left < plan.points ? int(left) : plan.points;
    const int64_t step = lie.heads * lie.blocks * size;
    for (int i = int(threadIdx.x); i < plan.columns * size; i += kMatrixThreads) {
      const int column = i / size, t = i % size;
      if (first_block + column >= lie.blocks) continue;
      T* out = sums.generators + at.chunk * generators_size(lie) +
               (at.head * lie.blocks + first_block) * size + i;
      for (int64_t c = 0; c < lie.dims; ++c, out += step) {
        T sum = 0;
        for (int point = 0; point < count; ++point)
          sum += position_of<T>(lie, item + point)[c] *
                 slots[(point * plan.columns + column) * slot + t];
        *out = item == at.first ? sum : *out + sum;
      }
    }
  }
}

}  // namespace lierope::cuda
