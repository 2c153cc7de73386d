// rotate_blocks and its adjoint: chooses between registers and tiles.
#pragma once
#include <type_traits>

#include "blocks_in_registers.cuh"
#include "blocks_in_tiles.cuh"

namespace lierope::cuda {

// Calls f with an element of the storage, the size of a block whose rotation fits registers, or 0,
// and whether 16-byte accesses fit.
template <class Params, class F>
void with_blocks(const Params& p, F&& f) {
  constexpr bool backward = requires { p.rotations_out; };
  with_storage(p.shape.dtype, [&](auto element) {
    using Storage = decltype(element);
    const auto call = [&]<int b>(std::integral_constant<int, b> size) {
      constexpr int64_t bytes = b * sizeof(Storage) < 16 ? b * sizeof(Storage) : 16;
      bool wide = all_rows_aligned(p, sizeof(Storage), bytes) && is_aligned(p.rotations, 16);
      if constexpr (backward) wide = wide && is_aligned(p.rotations_out, 16);
      wide ? f(element, size, std::true_type()) : f(element, size, std::false_type());
    };
    constexpr bool eight = sizeof(Compute<Storage>) == 4;  // 64 doubles fill 128 registers
    if (p.block_size == 2) return call(std::integral_constant<int, 2>());
    if (p.block_size == 4) return call(std::integral_constant<int, 4>());
    if constexpr (eight) {
      if (p.block_size == 8) return call(std::integral_constant<int, 8>());
    }
    f(element, std::integral_constant<int, 0>(), std::false_type());
  });
}

// Blocks of threads for `items` a block of the tokens' blocks of features, heads, slices.
inline dim3 block_grid(const Tokens& shape, int64_t blocks, int64_t items, int64_t rows,
                       const Launch& launch) {
  constexpr int64_t kMost = 65535;
  const int64_t heads = shape.rotation_heads < kMost ? shape.rotation_heads : kMost;
  const unsigned x = blocks_for(shape.tokens * blocks, items);
  const int64_t samples = shape.batch < kMost ? shape.batch : kMost;
  const int64_t z = shape.per_sample ? samples : slices_for(rows, x * heads, 4, launch);
  return {x, unsigned(heads), unsigned(z)};
}

void rotate_blocks(const RotateBlocksParams& p, const Launch& launch) {
  with_blocks(p, [&]<class Storage, int b, bool wide>(Storage, std::integral_constant<int, b>,
                                                      std::bool_constant<wide>) {
    if constexpr (b == 0) {
      launch_blocks_in_tiles<Storage>(p, launch);
    } else {
      const Tokens& shape = p.shape;
      LIEROPE_LAUNCH((blocks_in_registers<Storage, b, wide>),
                     block_grid(shape, p.blocks, kBlockThreads, shape.batch, launch), kBlockThreads,
                     0, launch, p);
      Tokens rest = shape;
      rest.prefix = 0;
      launch_copy_unrotated<Storage>(p.q, p.q_out, rest, shape.q_heads, p.blocks * b, launch);
      launch_copy_unrotated<Storage>(p.k, p.k_out, rest, shape.k_heads, p.blocks * b, launch);
    }
  });
}

// The backward's warps a block of threads, and its grid.
struct BackwardShape {
  unsigned warps;
  dim3 grid;
};
inline BackwardShape backward_shape(const RotateBlocksBackwardParams& p, const Launch& launch) {
  const Tokens& shape = p.shape;
  const unsigned most = kBlockThreads / kItems;
  const unsigned warps = shape.per_sample || shape.batch < 2 ? 1
                         : shape.batch < most                ? unsigned(shape.batch)
                                                             : most;
  return {warps, block_grid(shape, p.blocks, kItems, shape.batch / warps, launch)};
}
inline int64_t rotation_entries(const RotateBlocksBackwardParams& p) {
  return p.shape.rotation_heads * (p.shape.tokens - p.shape.prefix) * p.blocks * p.block_size *
         p.block_size;
}

int64_t rotate_blocks_backward_workspace(const RotateBlocksBackwardParams& p,
                                         const Launch& device) {
  int64_t bytes = 0;
  with_blocks(p, [&]<class Storage, int b, bool wide>(Storage, std::integral_constant<int, b>,
                                                      std::bool_constant<wide>) {
    const int64_t slices = backward_shape(p, device).grid.z;
    if (b > 0 && !p.shape.per_sample && slices > 1)
      bytes = slices * rotation_entries(p) * int64_t(sizeof(Compute<Storage>));
  });
  return bytes;
}

template <class Storage, int b, bool wide>
void launch_in_registers(const RotateBlocksBackwardParams& p, const Launch& launch) {
  using T = Compute<Storage>;
  const BackwardShape at = backward_shape(p, launch);
  T* const out = static_cast<T*>(p.rotations_out);
  const bool in_slices = !p.shape.per_sample && at.grid.z > 1;
  T* const sums = in_slices ? static_cast<T*>(launch.workspace) : out;
  const int64_t shared = int64_t(at.warps - 1) * b * b * kItems * sizeof(T);
  LIEROPE_LAUNCH((blocks_in_registers_backward<Storage, b, wide>), at.grid, dim3(kItems, at.warps),
                 shared, launch, p, sums);
  if (in_slices) launch_sum_slices(sums, out, rotation_entries(p), at.grid.z, launch);
  Tokens rest = p.shape;
  rest.prefix = 0;
  launch_copy_unrotated<Storage>(p.q_grad, p.q_out, rest, rest.q_heads, p.blocks * b, launch);
  launch_copy_unrotated<Storage>(p.k_grad, p.k_out, rest, rest.k_heads, p.blocks * b, launch);
}

void rotate_blocks_backward(const RotateBlocksBackwardParams& p, const Launch& launch) {
  with_blocks(p, [&]<class Storage, int b, bool wide>(Storage, std::integral_constant<int, b>,
                                                      std::bool_constant<wide>) {
    if constexpr (b > 0) {
      launch_in_registers<Storage, b, wide>(p, launch);
    } else {
      launch_outer_products<Storage>(p, launch);
      launch_blocks_in_tiles<Storage>({p.shape, p.q_grad, p.k_grad, p.q_out, p.k_out, p.rotations,
                                       p.blocks, p.block_size, true},
                                      launch);
    }
  });
}

}  // namespace lierope::cuda
