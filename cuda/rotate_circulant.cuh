// rotate_circulant and its adjoint: a team takes the same blocks of features of every head and
// sample that shares their angles through FFT, phases and inverse.
#pragma once
#include "../csrc/params/rotate_circulant.h"
#include "circulant_rows.cuh"

namespace lierope::cuda {

// Cosines and sines of a tile's angles, with the inverse's scale.
template <bool kLarge, class T>
__device__ __forceinline__ void prepare_phases(const Team<kLarge>& team, const CirculantSizes& s,
                                               const T* angles, int count, T sign,
                                               Cell<T>* phases) {
  const T scale = s.template scale<T>();
  for (int e = team.rank; e < count; e += team.size) {
    T sine, cosine;
    sine_cosine(angles[e], &sine, &cosine);
    phases[e] = Cell<T>{cosine * scale, sine * (sign * scale)};
  }
}

template <class Storage, bool kLarge>
__global__ void __launch_bounds__(circulant_threads(kLarge), kLarge ? 1 : 4)
    rotate_circulant_kernel(RotateCirculantParams p, CirculantPlan plan, char* rooms) {
  using T = Compute<Storage>;
  const CirculantSizes& s = plan.sizes;
  LIEROPE_DYNAMIC_SHARED(char, shared);
  char* const room = circulant_room<kLarge>(plan, rooms, shared);
  const CirculantTables<T> tables(room, s.n);
  const Team<kLarge> team;
  Cell<T>* const phases = reinterpret_cast<Cell<T>*>(
      room + plan.table_bytes + circulant_team_in_block<kLarge>() * plan.team_bytes);
  Cell<T>* const z = phases + plan.units * s.modes;
  tables.fill(s);
  __syncthreads();

  for (int64_t i = circulant_first_tile<kLarge>(); i < plan.tiles;
       i += circulant_tile_step<kLarge>()) {
    const CirculantTile tile(p.shape, plan, i);
    prepare_phases(team, s, static_cast<const T*>(p.angles) + tile.unit * s.modes,
                   tile.units * s.modes, p.inverse ? T(-1) : T(1), phases);
    const int count = tile.units * s.n, items = plan.items.by;
    for (CirculantTurn turn(p.shape, plan, tile); turn.more(); turn.next()) {
      const Storage* const x = turn.row<Storage>(turn.is_q() ? p.q : p.k);
      Storage* const y = turn.out<Storage>(p.shape, p.q_out, p.k_out);
      const int64_t y_token = turn.out_token(p.shape);
      const int64_t x_token = turn.is_q() ? p.q.stride_token : p.k.stride_token;
      copy_untouched(team, p.shape, plan, tile, x, x_token, y, y_token);
      load_blocks(team, p.shape, plan, tile, x, x_token, z, 0);
      team.sync();
      fft_forward(team, s, tables.roots, z, 0, count);
      for (int e = team.rank; e < tile.units * items; e += team.size) {
        const int unit = plan.items.quotient(e);
        turn_mode(Spectrum<T>{s, tables, phases + unit * s.modes, z, unit * s.n}, e - unit * items);
      }
      team.sync();
      fft_backward(team, s, tables.roots, z, 0, count);
      store_blocks(team, p.shape, plan, tile, z, 0, y, y_token);
      team.sync();
    }
    team.sync();  // the next tile's phases
  }
}

// Each slice of the batch writes its sums of angle gradients to a table of its own.
template <class Storage, bool kLarge>
__global__ void __launch_bounds__(circulant_threads(kLarge), kLarge ? 1 : 4)
    rotate_circulant_backward_kernel(RotateCirculantBackwardParams p, CirculantPlan plan,
                                     char* rooms, Compute<Storage>* angles_out) {
  using T = Compute<Storage>;
  const CirculantSizes& s = plan.sizes;
  LIEROPE_DYNAMIC_SHARED(char, shared);
  char* const room = circulant_room<kLarge>(plan, rooms, shared);
  const CirculantTables<T> tables(room, s.n);
  const Team<kLarge> team;
  Cell<T>* const phases = reinterpret_cast<Cell<T>*>(
      room + plan.table_bytes + circulant_team_in_block<kLarge>() * plan.team_bytes);
  Cell<T>* const z = phases + plan.units * s.modes;
  T* const sums = reinterpret_cast<T*>(z + padded(2 * plan.units * s.n));
  tables.fill(s);
  __syncthreads();

  for (int64_t i = circulant_first_tile<kLarge>(); i < plan.tiles;
       i += circulant_tile_step<kLarge>()) {
    const CirculantTile tile(p.shape, plan, i);
    const int angles = tile.units * s.modes, count = tile.units * s.n, items = plan.items.by;
    prepare_phases(team, s, static_cast<const T*>(p.angles) + tile.unit * s.modes, angles, T(1),
                   phases);
    for (int e = team.rank; e < angles; e += team.size) sums[e] = 0;
    for (CirculantTurn turn(p.shape, plan, tile); turn.more(); turn.next()) {
      const View& view = turn.is_q() ? p.q_rotated : p.k_rotated;
      const View& grad_view = turn.is_q() ? p.q_grad : p.k_grad;
      const Storage* const y = turn.row<Storage>(view);
      const Storage* const grad = turn.row<Storage>(grad_view);
      Storage* const out = turn.out<Storage>(p.shape, p.q_out, p.k_out);
      const int64_t out_token = turn.out_token(p.shape);
      copy_untouched(team, p.shape, plan, tile, grad, grad_view.stride_token, out, out_token);
      load_blocks(team, p.shape, plan, tile, y, view.stride_token, z, 0);
      load_blocks(team, p.shape, plan, tile, grad, grad_view.stride_token, z, count);
      team.sync();
      fft_forward(team, s, tables.roots, z, 0, 2 * count);
      for (int e = team.rank; e < tile.units * items; e += team.size) {
        const int unit = plan.items.quotient(e);
        const Cell<T>* const of_unit = phases + unit * s.modes;
        turn_mode_adjoint(Spectrum<T>{s, tables, of_unit, z, count + unit * s.n},
                          Spectrum<T>{s, tables, of_unit, z, unit * s.n}, e - unit * items,
                          sums + unit * s.modes);
      }
      team.sync();
      fft_backward(team, s, tables.roots, z, count, count);
      store_blocks(team, p.shape, plan, tile, z, count, out, out_token);
      team.sync();
    }
    team.sync();
    const T scale = s.template scale<T>();
    T* const to = angles_out + blockIdx.y * plan.angles + tile.unit * s.modes;
    for (int e = team.rank; e < angles; e += team.size) to[e] = sums[e] * scale;
    team.sync();
  }
}

template <class Storage, bool kLarge>
void launch_circulant(const RotateCirculantParams& p, const CirculantPlan& plan,
                      const Launch& launch) {
  LIEROPE_LAUNCH((rotate_circulant_kernel<Storage, kLarge>), dim3(plan.blocks, plan.slices),
                 circulant_threads(kLarge), plan.shared_bytes(), launch, p, plan,
                 plan.rooms_in(launch));
}

template <class Storage, bool kLarge>
void launch_circulant(const RotateCirculantBackwardParams& p, const CirculantPlan& plan,
                      const Launch& launch) {
  using T = Compute<Storage>;
  T* const out = static_cast<T*>(p.angles_out);
  T* const partial = plan.slices == 1 ? out : static_cast<T*>(plan.partial_in(launch));
  LIEROPE_LAUNCH((rotate_circulant_backward_kernel<Storage, kLarge>),
                 dim3(plan.blocks, plan.slices), circulant_threads(kLarge), plan.shared_bytes(),
                 launch, p, plan, plan.rooms_in(launch), partial);
  if (plan.slices > 1) launch_sum_slices(partial, out, plan.angles, plan.slices, launch);
}

template <class Params>
void run_circulant(Params p, const Launch& launch) {
  if (p.blocks == 0) p.shape.prefix = p.shape.tokens;  // nothing turns
  const CirculantPlan plan = plan_circulant(p, launch);
  with_storage(p.shape.dtype, [&](auto element) {
    using Storage = decltype(element);
    plan.large ? launch_circulant<Storage, true>(p, plan, launch)
               : launch_circulant<Storage, false>(p, plan, launch);
  });
}

void rotate_circulant(const RotateCirculantParams& p, const Launch& launch) {
  run_circulant(p, launch);
}
int64_t rotate_circulant_workspace(const RotateCirculantParams& p, const Launch& device) {
  return plan_circulant(p, device).workspace_bytes();
}
void rotate_circulant_backward(const RotateCirculantBackwardParams& p, const Launch& launch) {
  run_circulant(p, launch);
}
int64_t rotate_circulant_backward_workspace(const RotateCirculantBackwardParams& p,
                                            const Launch& device) {
  return plan_circulant(p, device).workspace_bytes();
}

}  // namespace lierope::cuda
