// How rotate_circulant is spread over a device: sizes of tiles, teams, slices of the batch, memory.
#pragma once
#include "circulant_fft.cuh"
#include "divisor.cuh"
#include "partial_sums.cuh"
#include "rows.cuh"

namespace lierope::cuda {

constexpr int kTeams = 4;           // warps of a CUDA block
constexpr int kTeamNumbers = 256;   // complex numbers of a warp's tile: a radix-8 butterfly a lane
constexpr int kLargeThreads = 256;  // of a CUDA block whose threads are one team

constexpr int circulant_threads(bool large) { return large ? kLargeThreads : 32 * kTeams; }

// A tile: `units` consecutive blocks of features, block after block, token after token, of one
// rotation head. Its turns: the rows of q and k, and of the batch unless angles are per sample,
// that share its angles. Slices share the turns out.
struct CirculantPlan {
  CirculantSizes sizes;
  int units, of_token;    // blocks of features of a tile, and of a token
  SmallDivisor features;  // of a token that are rotated
  SmallDivisor items;     // n / 2 + 1: modes of a block of features with their partners
  int q_each, k_each;     // heads that share a rotation
  bool wide;              // every row can be read 16 bytes at a time
  bool large;             // a CUDA block is one team
  bool in_workspace;      // its memory does not fit in shared memory
  unsigned blocks, slices;
  int64_t tiles, turns, turns_of_slice;
  Divisor tiles_of_rotation, rotations, blocks_of_token, heads_of_turns;
  int64_t angles;  // numbers in the tensor of angles
  int table_bytes, team_bytes, number_bytes;

  int64_t room_bytes() const { return table_bytes + int64_t(large ? 1 : kTeams) * team_bytes; }
  int64_t shared_bytes() const { return in_workspace ? 0 : room_bytes(); }
  int64_t rooms_bytes() const {
    return in_workspace ? (room_bytes() + 255) / 256 * 256 * blocks * slices : 0;
  }
  int64_t workspace_bytes() const {
    return rooms_bytes() + (slices > 1 ? slices * angles * number_bytes : 0);
  }
  char* rooms_in(const Launch& launch) const {
    return in_workspace ? static_cast<char*>(launch.workspace) : nullptr;
  }
  void* partial_in(const Launch& launch) const {
    return static_cast<char*>(launch.workspace) + rooms_bytes();
  }
};

inline CirculantSizes circulant_sizes(int64_t b) {
  CirculantSizes s{};
  math::FftPlan<double> fft{};
  fft.n = b % 2 == 0 ? b / 2 : b;
  math::choose_radices(fft);
  s.b = int(b);
  s.n = int(fft.n);
  s.modes = int((b - 1) / 2);
  s.stages = fft.stages;
  s.half_inverse = 0.5 / double(b);
  for (int i = 0; i < fft.stages; ++i) s.radices |= uint64_t(fft.radix[i]) << (4 * i);
  return s;
}

inline int64_t element_bytes(DType dtype) {
  return dtype == DType::f64 ? 8 : dtype == DType::f32 ? 4 : 2;
}

template <class Params>
CirculantPlan plan_circulant(const Params& p, const Launch& device) {
  constexpr bool backward = requires { p.q_grad; };
  const Tokens& shape = p.shape;
  const int64_t points = shape.tokens - shape.prefix, rotations = shape.rotation_heads;
  CirculantPlan plan{};
  const CirculantSizes s = plan.sizes = circulant_sizes(p.block_size);
  plan.large = s.n > kTeamNumbers;
  plan.units = plan.large ? 1 : kTeamNumbers / s.n;
  plan.of_token = int(p.blocks);
  plan.features = small_divisor(p.blocks * p.block_size);
  plan.items = small_divisor(s.n / 2 + 1);
  plan.q_each = int(shape.q_heads / rotations);
  plan.k_each = int(shape.k_heads / rotations);
  const int64_t bytes = element_bytes(shape.dtype);
  plan.wide = p.block_size * bytes % 16 == 0 && all_rows_aligned(p, bytes, 16);
  plan.number_bytes = shape.dtype == DType::f64 ? 8 : 4;

  const auto round_up = CirculantTables<float>::round_up;
  const int64_t numbers = plan.units * int64_t(s.n) * (backward ? 2 : 1);
  const int64_t modes = plan.units * int64_t(s.modes);
  plan.table_bytes = int(plan.number_bytes == 8 ? CirculantTables<double>::bytes(s.n)
                                                : CirculantTables<float>::bytes(s.n));
  plan.team_bytes = int(round_up(plan.number_bytes *
                                 (2 * modes + 2 * padded(int(numbers)) + (backward ? modes : 0))));
  plan.in_workspace = plan.room_bytes() > device.shared_bytes;

  // Tokens without a block to rotate are a tile too, which copies them.
  const int64_t units = points * p.blocks, samples = shape.per_sample ? shape.batch : 1;
  const int64_t tiles = units > 0 ? (units + plan.units - 1) / plan.units : 1;
  plan.tiles = shape.tokens == 0 ? 0 : tiles * rotations * samples;
  plan.tiles_of_rotation = divisor(tiles);
  plan.rotations = divisor(rotations);
  plan.heads_of_turns = divisor(plan.q_each + plan.k_each);
  plan.blocks_of_token = divisor(p.blocks > 0 ? p.blocks : 1);
  plan.angles = units * rotations * samples * s.modes;
  plan.turns = (shape.per_sample ? 1 : shape.batch) * int64_t(plan.q_each + plan.k_each);

  // As many warps as keep the device's memory busy; slices of the batch where tiles are too few.
  const int64_t per_block = plan.large ? 1 : kTeams;
  const int64_t blocks = (plan.tiles + per_block - 1) / per_block;
  const int64_t most = plan.in_workspace ? 2 * device.multiprocessors : (int64_t(1) << 31) - 1;
  plan.blocks = unsigned(blocks < most ? blocks : most);
  int64_t slices = plan.in_workspace ? 1 : slices_for(plan.turns, blocks, 8, device);
  plan.turns_of_slice = slices < plan.turns ? (plan.turns + slices - 1) / slices : 1;
  slices = (plan.turns + plan.turns_of_slice - 1) / plan.turns_of_slice;
  plan.slices = unsigned(slices < 1 ? 1 : slices);
  return plan;
}

}  // namespace lierope::cuda
