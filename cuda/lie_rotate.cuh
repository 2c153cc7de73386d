// lie_rotate and its adjoint: each rotation is made on chip, turns all rows of the batch, and is
// forgotten.
#pragma once
#include "lie_rotate_blocks.cuh"

namespace lierope::cuda {

// The widest access, up to 16 bytes, that `count` elements allow.
inline int64_t widest_access(int64_t count, int64_t element) {
  int64_t bytes = 16;
  while (count * element % bytes != 0) bytes /= 2;
  return bytes;
}
// Whether rows are read and written by wide accesses: by blocks of a thread, or quads of a tile.
template <class Params>
bool rows_are_wide(const Params& p, bool by_quads) {
  const DType t = p.shape.dtype;
  const int64_t element = t == DType::f64 ? 8 : t == DType::f32 ? 4 : 2;
  const int64_t count = by_quads ? 4 : p.lie.block_size;
  return p.lie.block_size % count == 0 &&
         all_rows_aligned(p, element, widest_access(count, element));
}

template <class Params>
void copy_unturned(const Params& p, const View& q, const View& k, const Launch& launch) {
  const Tokens& shape = p.shape;
  const int64_t turned = p.lie.blocks * p.lie.block_size;
  with_storage(shape.dtype, [&](auto storage) {
    using Storage = decltype(storage);
    launch_copy_unrotated<Storage>(q, p.q_out, shape, shape.q_heads, turned, launch);
    launch_copy_unrotated<Storage>(k, p.k_out, shape, shape.k_heads, turned, launch);
  });
}

inline TurnedSides turned_sides(const LieRotateParams& p, bool by_quads) {
  const Tokens& shape = p.shape;
  return {turned_side(p, p.q, {}, p.q_out, shape.q_heads),
          turned_side(p, p.k, {}, p.k_out, shape.k_heads),
          shape.dtype,
          rows_are_wide(p, by_quads),
          shape.per_sample,
          shape.batch,
          shape.prefix};
}
inline TurnedSides turned_sides(const LieRotateBackwardParams& p, bool by_quads) {
  const Tokens& shape = p.shape;
  return {turned_side(p, p.q_rotated, p.q_grad, p.q_out, shape.q_heads),
          turned_side(p, p.k_rotated, p.k_grad, p.k_out, shape.k_heads),
          shape.dtype,
          rows_are_wide(p, by_quads),
          shape.per_sample,
          shape.batch,
          shape.prefix};
}

// Slices of the batch, each a row of the grid that forms the rotations again.
inline unsigned forward_slices(const LieRotateParams& p, int64_t blocks, const Launch& launch) {
  if (p.shape.per_sample || blocks == 0) return 1;
  const int64_t wanted = (4 * launch.multiprocessors + blocks - 1) / blocks;
  const int64_t most = p.shape.batch < 16 ? p.shape.batch : 16;
  return unsigned(wanted < 1 ? 1 : wanted < most ? wanted : most);
}

template <class T>
void launch_lie_rotate(const LieRotateParams& p, const Launch& launch) {
  const Lie& lie = p.lie;
  copy_unturned(p, p.q, p.k, launch);
  if (p.shape.batch == 0) return;
  if (lie.block_size <= kThreadLargest<T>)
    return with_thread_side<T>(lie.block_size, [&](auto n) {
      const LieThreads plan(lie, 1, lie.heads * lie.samples * lie.points * lie.blocks);
      const unsigned blocks = plan.grid(lie);
      LIEROPE_LAUNCH((lie_rotate_threads<T, n>), dim3(blocks, forward_slices(p, blocks, launch)),
                     kMatrixThreads, 0, launch, lie, turned_sides(p, false), plan);
    });
  with_tile<T>(lie.block_size, [&](auto tile) {
    const BlockPlan<T, tile> plan(lie.block_size, 2, launch.workspace);
    const LieChunks cut(lie, lie.heads * lie.blocks * lie.samples * lie.points);
    LIEROPE_LAUNCH((lie_rotate_block<T, tile>), plan.grid(cut.count(), launch), plan.threads(),
                   plan.shared_bytes(), launch, lie, turned_sides(p, true), cut, plan);
  });
}

inline int64_t sequences_of(const Tokens& shape) { return shape.per_sample ? 1 : shape.batch; }

template <class T>
void launch_lie_rotate_backward(const LieRotateBackwardParams& p, const Launch& launch) {
  const Lie& lie = p.lie;
  copy_unturned(p, p.q_grad, p.k_grad, launch);
  with_lie_backward<T>(
      lie, p.positions_out != nullptr, 3, sequences_of(p.shape), launch,
      [&](auto n, const LieThreads& plan, const LieWorkspace<T>& workspace) {
        LIEROPE_LAUNCH((lie_rotate_backward_threads<T, n>), plan.grid(lie), kMatrixThreads,
                       (int64_t(sizeof(T)) * kMatrixThreads * kTriangleSlot<n>), launch, lie,
                       turned_sides(p, false), plan,
                       workspace.sums(launch.workspace, p.generators_out));
        launch_lie_sums(lie, workspace, p.generators_out, p.positions_out, launch);
      },
      [&](auto plan, const LieChunks& cut, const LieWorkspace<T>& workspace) {
        plan.workspace = static_cast<T*>(workspace.room(launch.workspace));
        LIEROPE_LAUNCH((lie_rotate_backward_block<T, decltype(plan)::kTile>),
                       plan.grid(cut.count(), launch), plan.threads(), plan.shared_bytes(), launch,
                       lie, turned_sides(p, true), cut,
                       workspace.sums(launch.workspace, p.generators_out), plan);
        launch_lie_sums(lie, workspace, p.generators_out, p.positions_out, launch);
      });
}

void lie_rotate(const LieRotateParams& p, const Launch& launch) {
  p.lie.is_double ? launch_lie_rotate<double>(p, launch) : launch_lie_rotate<float>(p, launch);
}
void lie_rotate_backward(const LieRotateBackwardParams& p, const Launch& launch) {
  p.lie.is_double ? launch_lie_rotate_backward<double>(p, launch)
                  : launch_lie_rotate_backward<float>(p, launch);
}
int64_t lie_rotate_workspace(const LieRotateParams& p, const Launch& device) {
  const int64_t count = p.lie.heads * p.lie.blocks * p.lie.samples * p.lie.points;
  return p.lie.is_double ? exponential_workspace<double>(count, p.lie.block_size, device) : 0;
}
int64_t lie_rotate_backward_workspace(const LieRotateBackwardParams& p, const Launch& device) {
  const bool wants_positions = p.positions_out != nullptr;
  const int64_t sequences = sequences_of(p.shape);
  return p.lie.is_double
             ? lie_backward_workspace<double>(p.lie, wants_positions, 3, sequences, device)
             : lie_backward_workspace<float>(p.lie, wants_positions, 3, sequences, device);
}

}  // namespace lierope::cuda
