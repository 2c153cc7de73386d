// lie_rotations and its adjoint: A from generators and a position on chip, exponentiated there.
#pragma once
#include "block_pull_back.cuh"
#include "lie_backward.cuh"

namespace lierope::cuda {

// The rotations in the order of memory: (samples, heads, points, blocks).
__device__ __forceinline__ LieIndex rotation_index(const Lie& lie, int64_t index) {
  const int64_t block = index % lie.blocks, point = index / lie.blocks % lie.points;
  const int64_t row = index / lie.blocks / lie.points;
  return {int(row % lie.heads), int(block), row / lie.heads * lie.points + point};
}
__device__ __forceinline__ int64_t rotation_place(const Lie& lie, const LieItem& item, int64_t head,
                                                  int64_t block) {
  const int64_t row = (item.sample * lie.heads + head) * lie.points + item.point;
  return (row * lie.blocks + block) * lie.block_size * lie.block_size;
}
inline int64_t rotation_count(const Lie& lie) {
  return lie.samples * lie.heads * lie.points * lie.blocks;
}

template <class T, int N>
__global__ void __launch_bounds__(kMatrixThreads, kThreadOccupancy<T, N>)
    lie_rotations_threads(LieRotationsParams p) {
  LIEROPE_DYNAMIC_SHARED(T, slots);
  const Lie& lie = p.lie;
  const int64_t first = int64_t(blockIdx.x) * kMatrixThreads;
  const int count = matrices_left(lie.samples * lie.heads * lie.points * lie.blocks, first);
  if (int(threadIdx.x) < count) {
    const LieIndex at = rotation_index(lie, first + int(threadIdx.x));
    T a[kTriangleRoom<N>], r[N * N];
    contract<N>(generators_of<T>(lie, at.head, at.block), lie.heads * lie.blocks * kTriangle<N>,
                position_of<T>(lie, at.item), lie.dims, T(1), a);
    thread_exponential<N>(static_cast<const T*>(a), r);
    write_slot<N>(own_slot<N>(slots), r);
  }
  __syncthreads();
  stage_out<N>(slots, static_cast<T*>(p.rotations) + first * N * N, count);
}

template <class T, int TS>
__global__ void __launch_bounds__(kBlockThreads<T, TS>, kBlockOccupancy<T, TS>)
    lie_rotations_block(LieRotationsParams p, int64_t count, BlockPlan<T, TS> plan) {
  LIEROPE_DYNAMIC_SHARED(T, shared);
  each_matrix(plan, count, [&](int64_t index, bool wanted) {
    const LieIndex at = rotation_index(p.lie, index);
    BlockExponential<T, TS> matrix = plan.matrix(shared);
    matrix.template exponential<1, true>(LieMatrix<T>(p.lie, at, 1));
    T* out = static_cast<T*>(p.rotations) + index * plan.n * plan.n;
    if (wanted) read_square(matrix.at, matrix.m0, out);
  });
}

template <class T, int N>
__global__ void __launch_bounds__(kMatrixThreads, kThreadOccupancy<T, N>)
    lie_rotations_backward_threads(LieRotationsBackwardParams p, LieThreads plan, LieSums<T> sums) {
  LIEROPE_DYNAMIC_SHARED(T, slots);
  LIEROPE_SHARED(int64_t, places, kMatrixThreads);
  const Lie& lie = p.lie;
  const LieThread at(plan, lie);
  T* slot = own_slot<N>(slots);
  LIEROPE_ROLLED
  for (int64_t group = at.first; group < at.last; group += plan.points) {
    const int64_t item = group + at.point;
    const bool mine = at.has(plan, lie, item);
    const LieItem where(item, lie.points, plan.per_point);
    places[threadIdx.x] = mine ? rotation_place(lie, where, at.head, at.block) : -1;
    __syncthreads();
    stage_in_from<N>(slots, static_cast<const T*>(p.grad), places);
    __syncthreads();
    if (mine) {
      T a[kTriangleRoom<N>], w[kTriangleRoom<N>];
      contract<N>(generators_of<T>(lie, at.head, at.block), lie.heads * lie.blocks * kTriangle<N>,
                  position_of<T>(lie, item), lie.dims, T(1), a);
      thread_pull_back<N>(
          static_cast<const T*>(a), [&](int i, int j) { return slot[i * N + j]; }, w);
      thread_adjoint<N>(static_cast<const T*>(a), w);
      write_position_gradient<N>(lie, sums, at, item, static_cast<const T*>(w));
      LIEROPE_EACH(t, 0, kTriangle<N>) slot[t] = w[t];
    }
    __syncthreads();
    add_generator_gradients<N>(plan, lie, sums, at, group, static_cast<const T*>(slots),
                               MatrixSlots<T, N>::slot);
    __syncthreads();
  }
}

template <class T, int TS>
__global__ void __launch_bounds__(kBlockThreads<T, TS>, kBlockOccupancy<T, TS>)
    lie_rotations_backward_block(LieRotationsBackwardParams p, LieChunks cut, LieSums<T> sums,
                                 BlockPlan<T, TS> plan) {
  LIEROPE_DYNAMIC_SHARED(T, shared);
  const Lie& lie = p.lie;
  each_lie_item(plan, cut, [&](const LieTask& task, bool wanted) {
    plan.matrix(shared).template exponential<1, false>(LieMatrix<T>(lie, task.index(lie, cut), 1));
    const BlockExponential<T, TS> forward = plan.matrix(shared);
    Kept<T, TS> w(forward.at, forward.room.kept, kKeptW);
    {
      const LieIndex at = task.index(lie, cut);
      const LieItem item(at.item, lie.points, cut.per_point);
      block_pull_back(
          forward, static_cast<const T*>(p.grad) + rotation_place(lie, item, at.head, at.block), w);
    }
    BlockExponential<T, TS> backward = plan.matrix(shared);
    backward.adjoint(LieMatrix<T>(lie, task.index(lie, cut), 1), w);
    write_skew(backward.at, backward.m1, w);
    __syncthreads();
    add_lie_gradient(plan.matrix(shared), lie, sums, task, cut, wanted);
  });
}

template <class T>
void launch_lie_rotations(const LieRotationsParams& p, const Launch& launch) {
  const Lie& lie = p.lie;
  const int64_t count = rotation_count(lie);
  if (lie.block_size <= kThreadLargest<T>)
    return with_thread_side<T>(lie.block_size, [&](auto n) {
      LIEROPE_LAUNCH((lie_rotations_threads<T, n>), blocks_for(count, kMatrixThreads),
                     kMatrixThreads, (MatrixSlots<T, n>::bytes), launch, p);
    });
  with_tile<T>(lie.block_size, [&](auto tile) {
    const BlockPlan<T, tile> plan(lie.block_size, 2, launch.workspace);
    LIEROPE_LAUNCH((lie_rotations_block<T, tile>), plan.grid(count, launch), plan.threads(),
                   plan.shared_bytes(), launch, p, count, plan);
  });
}

template <class T>
void launch_lie_rotations_backward(const LieRotationsBackwardParams& p, const Launch& launch) {
  const Lie& lie = p.lie;
  with_lie_backward<T>(
      lie, p.positions_out != nullptr, 2, 0, launch,
      [&](auto n, const LieThreads& plan, const LieWorkspace<T>& workspace) {
        LIEROPE_LAUNCH((lie_rotations_backward_threads<T, n>), plan.grid(lie), kMatrixThreads,
                       (MatrixSlots<T, n>::bytes), launch, p, plan,
                       workspace.sums(launch.workspace, p.generators_out));
        launch_lie_sums(lie, workspace, p.generators_out, p.positions_out, launch);
      },
      [&](auto plan, const LieChunks& cut, const LieWorkspace<T>& workspace) {
        plan.workspace = static_cast<T*>(workspace.room(launch.workspace));
        LIEROPE_LAUNCH((lie_rotations_backward_block<T, decltype(plan)::kTile>),
                       plan.grid(cut.count(), launch), plan.threads(), plan.shared_bytes(), launch,
                       p, cut, workspace.sums(launch.workspace, p.generators_out), plan);
        launch_lie_sums(lie, workspace, p.generators_out, p.positions_out, launch);
      });
}

void lie_rotations(const LieRotationsParams& p, const Launch& launch) {
  p.lie.is_double ? launch_lie_rotations<double>(p, launch)
                  : launch_lie_rotations<float>(p, launch);
}
void lie_rotations_backward(const LieRotationsBackwardParams& p, const Launch& launch) {
  p.lie.is_double ? launch_lie_rotations_backward<double>(p, launch)
                  : launch_lie_rotations_backward<float>(p, launch);
}
int64_t lie_rotations_workspace(const LieRotationsParams& p, const Launch& device) {
  const int64_t count = rotation_count(p.lie);
  return p.lie.is_double ? exponential_workspace<double>(count, p.lie.block_size, device) : 0;
}
int64_t lie_rotations_backward_workspace(const LieRotationsBackwardParams& p,
                                         const Launch& device) {
  const bool wants_positions = p.positions_out != nullptr;
  return p.lie.is_double ? lie_backward_workspace<double>(p.lie, wants_positions, 2, 0, device)
                         : lie_backward_workspace<float>(p.lie, wants_positions, 2, 0, device);
}

}  // namespace lierope::cuda
