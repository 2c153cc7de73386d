// The plan of a backward over generators and positions: how it is cut, what workspace it takes.
#pragma once
#include "lie_blocks.cuh"
#include "lie_threads.cuh"

namespace lierope::cuda {

// Into how many slices a CUDA block cuts the sequences that a rotation turns: more where there are
// too few rotations to fill the device.
inline int lie_slices(const Lie& lie, int64_t sequences, const Launch& device) {
  const int64_t threads = lie.heads * lie.blocks * lie.samples * lie.points;
  const int64_t wanted = int64_t(2 * kMatrixThreads) * device.multiprocessors;
  int slices = 1;
  while (slices < 4 && threads * slices < wanted && 2 * slices <= sequences) slices *= 2;
  return slices;
}

// Calls on_threads(N, plan, workspace) or on_blocks(plan, cut, workspace). `sequences` as for
// lie_slices; `buffers` of a matrix that is shared, or two where so many have no room.
template <class T, class OnThreads, class OnBlocks>
void with_lie_backward(const Lie& lie, bool wants_positions, int buffers, int64_t sequences,
                       const Launch& device, OnThreads on_threads, OnBlocks on_blocks) {
  if (lie.block_size <= kThreadLargest<T>) {
    const int64_t blocks = (lie.block_size > 4 ? 2 : 8) * device.multiprocessors;
    const LieThreads plan(lie, lie_slices(lie, sequences, device), blocks);
    const LieWorkspace<T> workspace(lie, plan.chunks, false, wants_positions, 0);
    return with_thread_side<T>(lie.block_size, [&](auto n) { on_threads(n, plan, workspace); });
  }
  with_tile<T>(lie.block_size, [&](auto tile) {
    BlockPlan<T, tile> plan(lie.block_size, buffers, nullptr);
    if (plan.shared_bytes() > device.shared_bytes) plan.buffers = 2;
    const LieChunks cut(lie, lie_slots(plan, device));
    on_blocks(plan, cut,
              LieWorkspace<T>(lie, cut.chunks, cut.is_long(), wants_positions,
                              plan.workspace_bytes(cut.count(), device)));
  });
}

template <class T>
int64_t lie_backward_workspace(const Lie& lie, bool wants_positions, int buffers, int64_t sequences,
                               const Launch& device) {
  int64_t bytes = 0;
  const auto take = [&](const auto&, const auto&, const LieWorkspace<T>& workspace) {
    bytes = workspace.bytes();
  };
  with_lie_backward<T>(lie, wants_positions, buffers, sequences, device, take, take);
  return bytes;
}

}  // namespace lierope::cuda
