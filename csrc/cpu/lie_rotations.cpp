// lie_rotations and its adjoint for blocks of one matrix a lane: tokens in the lanes, no A in
// memory.
#include "../kernels.h"
#include "lane_exponential.h"
#include "lie_lanes.h"
#include "panel.h"

namespace lierope::cpu::LIEROPE_ISA {

// The rotations, or their gradients, of the tokens in the lanes: (samples, heads, points, blocks,
// N, N).
template <class Pointer, class T, int N>
static LIEROPE_HD SomeRows<Pointer> rotations_of(Pointer* rotations, const Lie& lie,
                                                 const LieTasks::Task& task,
                                                 const LieLanes<T, N>& lanes, int64_t block) {
  const int64_t row = (task.sample * lie.heads + task.head) * lie.points + lanes.first();
  return {rotations + (row * lie.blocks + block) * N * N, lie.blocks * N * N, lanes.count()};
}

template <class T, int N>
static void rotations_of_tasks(const LieRotationsParams& params, const LieTasks& tasks,
                               int64_t begin, int64_t end) {
  const Lie& lie = params.lie;
  LieLanes<T, N> lanes(lie);
  StagedRows<T, T> staged(N * N);
  Ahead ahead;
  for (int64_t index = begin; index < end; ++index) {
    const auto task = tasks[index];
    for (int64_t group = task.first_group; group < task.last_group; ++group) {
      lanes.set_group(task.sample, task.head, group);
      for (int64_t block = 0; block < lie.blocks; ++block) {
        Vec<T> a[math::kTriangle<N> + 1], r[N * N];
        lanes.contract(block, a);
        lane_expm<T, N>(a, r, ahead);
        const SomeRows<T> rows =
            rotations_of<T, T, N>(static_cast<T*>(params.rotations), lie, task, lanes, block);
        store_rows<N * N, T>(staged.target(rows), r);
        staged.flush(rows);
      }
    }
  }
}

template <class T, int N>
static void gradients_of_tasks(const LieRotationsBackwardParams& params, const LieTasks& tasks,
                               const LieTaskGradients<T>& gradients, int64_t begin, int64_t end) {
  const Lie& lie = params.lie;
  LieLanes<T, N> lanes(lie);
  StagedRows<T, T> staged(N * N);
  Ahead ahead;
  Scratch<LaneAdjoint<T, N>> scratch(1);
  LaneAdjoint<T, N>& exponential = *scratch;
  for (int64_t index = begin; index < end; ++index) {
    const auto task = tasks[index];
    lanes.clear_generator_sums();
    for (int64_t group = task.first_group; group < task.last_group; ++group) {
      lanes.set_group(task.sample, task.head, group);
      lanes.clear_position_sums();
      for (int64_t block = 0; block < lie.blocks; ++block) {
        Vec<T> a[math::kTriangle<N> + 1], w[math::kTriangle<N> + 1], full[N * N];
        lanes.contract(block, a);
        lane_start<T, N>(exponential, a, ahead);
        load_rows<N * N, T>(staged.read(rotations_of<const T, T, N>(
                                static_cast<const T*>(params.grad), lie, task, lanes, block)),
                            full);
        lane_pull_back<T, N>(exponential, full, w);
        lane_adjoint<T, N>(exponential, w, a, ahead);
        lanes.add_gradient(block, a);
      }
      if (T* out = gradients.positions(task.sample, task.head)) lanes.store_position_sums(out);
    }
    lanes.reduce_generators(gradients.generators(index));
  }
}

template <class T, int N>
static void lie_rotations_lanes(const LieRotationsParams& params) {
  const LieTasks tasks(params.lie, kLanes<T>);
  parallel_for(tasks.count, 1, [&](int64_t begin, int64_t end) {
    rotations_of_tasks<T, N>(params, tasks, begin, end);
  });
}

template <class T, int N>
static void lie_rotations_lanes_backward(const LieRotationsBackwardParams& params) {
  const LieTasks tasks(params.lie, kLanes<T>);
  const LieTaskGradients<T> gradients(params.lie, tasks, params.generators_out,
                                      params.positions_out);
  parallel_for(tasks.count, 1, [&](int64_t begin, int64_t end) {
    gradients_of_tasks<T, N>(params, tasks, gradients, begin, end);
  });
  gradients.sum();
}

void lie_rotations(const LieRotationsParams& params) {
  if (params.lie.block_size > kLanesLargest) return panel_lie_rotations(params);
  with_size<kLanesLargest>(params.lie.block_size, [&](auto n) {
    if (params.lie.is_double)
      lie_rotations_lanes<double, n>(params);
    else
      lie_rotations_lanes<float, n>(params);
  });
}

void lie_rotations_backward(const LieRotationsBackwardParams& params) {
  if (params.lie.block_size > kLanesLargest) return panel_lie_rotations_backward(params);
  with_size<kLanesLargest>(params.lie.block_size, [&](auto n) {
    if (params.lie.is_double)
      lie_rotations_lanes_backward<double, n>(params);
    else
      lie_rotations_lanes_backward<float, n>(params);
  });
}

}  // namespace lierope::cpu::LIEROPE_ISA
