// A team's tile of rotate_circulant: which rows it reads and writes, and moving them.
#pragma once
#include "circulant_plan.cuh"

namespace lierope::cuda {

__device__ __forceinline__ void sine_cosine(float t, float* sine, float* cosine) {
  sincosf(t, sine, cosine);
}
__device__ __forceinline__ void sine_cosine(double t, double* sine, double* cosine) {
  sincos(t, sine, cosine);
}

template <bool kLarge>
__device__ __forceinline__ char* circulant_room(const CirculantPlan& plan, char* rooms,
                                                char* shared) {
  if constexpr (!kLarge) {
    return shared;
  } else {
    if (rooms == nullptr) return shared;
    const int64_t bytes = (plan.table_bytes + int64_t(plan.team_bytes) + 255) / 256 * 256;
    return rooms + (int64_t(blockIdx.y) * gridDim.x + blockIdx.x) * bytes;
  }
}
template <bool kLarge>
__device__ __forceinline__ int circulant_team_in_block() {
  return kLarge ? 0 : int(threadIdx.x / warpSize);
}
template <bool kLarge>
__device__ __forceinline__ int64_t circulant_first_tile() {
  return kLarge ? int64_t(blockIdx.x)
                : int64_t(blockIdx.x) * kTeams + circulant_team_in_block<kLarge>();
}
template <bool kLarge>
__device__ __forceinline__ int64_t circulant_tile_step() {
  return kLarge ? int64_t(gridDim.x) : int64_t(gridDim.x) * kTeams;
}

struct CirculantTile {
  int64_t sample, rotation;
  int64_t unit;   // in the tensor of angles, of its first block of features
  int64_t token;  // counted without the prefix, of that block
  int feature;    // where it begins there
  int units;
  bool first;  // of its rotation

  __device__ CirculantTile(const Tokens& shape, const CirculantPlan& plan, int64_t i) {
    const int64_t row = plan.tiles_of_rotation.quotient(i);
    const int64_t in_rotation = i - row * plan.tiles_of_rotation.by;
    sample = plan.rotations.quotient(row);
    rotation = row - sample * shape.rotation_heads;
    first = in_rotation == 0;
    const int64_t all = (shape.tokens - shape.prefix) * plan.of_token;
    const int64_t begin = in_rotation * plan.units;
    units = int(all - begin < plan.units ? all - begin : plan.units);
    unit = row * all + begin;
    token = plan.blocks_of_token.quotient(begin);
    feature = int(begin - token * plan.of_token) * plan.sizes.b;
  }
};

// Turns of a tile: the heads of its rotation, queries first, sample after sample.
class CirculantTurn {
 public:
  __device__ CirculantTurn(const Tokens& shape, const CirculantPlan& plan,
                           const CirculantTile& tile)
      : q_each_(plan.q_each),
        k_each_(plan.k_each),
        rotation_(tile.rotation),
        batch_(shape.per_sample ? tile.sample : 0) {
    const int64_t begin = blockIdx.y * plan.turns_of_slice;
    left_ = plan.turns - begin < plan.turns_of_slice ? plan.turns - begin : plan.turns_of_slice;
    const int64_t before = left_ > 0 ? plan.heads_of_turns.quotient(begin) : 0;
    batch_ += before;
    head_ = int(begin - before * (q_each_ + k_each_));
  }
  __device__ bool more() const { return left_ > 0; }
  __device__ void next() {
    --left_;
    if (++head_ < q_each_ + k_each_) return;
    head_ = 0;
    ++batch_;
  }
  __device__ bool is_q() const { return head_ < q_each_; }

  template <class Storage>
  __device__ const Storage* row(const View& view) const {
    return static_cast<const Storage*>(view.data) + batch_ * view.stride_batch +
           head() * view.stride_head;
  }
  template <class Storage>
  __device__ Storage* out(const Tokens& shape, void* q_out, void* k_out) const {
    const int64_t heads = is_q() ? shape.q_heads : shape.k_heads, d = shape.head_dim;
    const int64_t row = shape.heads_side_by_side ? d : shape.tokens * d;
    return static_cast<Storage*>(is_q() ? q_out : k_out) + batch_ * heads * shape.tokens * d +
           head() * row;
  }
  // The stride of the tokens of out().
  __device__ int64_t out_token(const Tokens& shape) const {
    const int64_t heads = is_q() ? shape.q_heads : shape.k_heads;
    return shape.heads_side_by_side ? heads * shape.head_dim : shape.head_dim;
  }

 private:
  int q_each_, k_each_, head_;
  int64_t rotation_, batch_, left_;

  __device__ int64_t head() const {
    return is_q() ? rotation_ * q_each_ + head_ : rotation_ * k_each_ + head_ - q_each_;
  }
};

// Rows of the prefix, with the first tile; features past the blocks, with the first block's tile.
template <bool kLarge, class Storage>
__device__ __forceinline__ void copy_untouched(const Team<kLarge>& team, const Tokens& shape,
                                               const CirculantPlan& plan, const CirculantTile& tile,
                                               const Storage* x, int64_t x_token, Storage* y,
                                               int64_t y_token) {
  const int64_t d = shape.head_dim;
  for (int64_t n = 0; tile.first && n < shape.prefix; ++n)
    for (int64_t i = team.rank; i < d; i += team.size) y[n * y_token + i] = x[n * x_token + i];
  const int rest = int(d) - plan.features.by;
  if (rest == 0 || tile.units == 0) return;
  const int begin = tile.feature / plan.sizes.b, skipped = begin == 0 ? 0 : 1;
  const int tokens = (begin + tile.units + plan.of_token - 1) / plan.of_token - skipped;
  for (int e = team.rank; e < tokens * rest; e += team.size) {
    const int64_t n = shape.prefix + tile.token + skipped + e / rest;
    const int feature = plan.features.by + e % rest;
    y[n * y_token + feature] = x[n * x_token + feature];
  }
}

// Calls f(element of the tile, token, feature) for every `step`-th element.
template <bool kLarge, class F>
__device__ __forceinline__ void for_elements(const Team<kLarge>& team, const Tokens& shape,
                                             const CirculantPlan& plan, const CirculantTile& tile,
                                             int step, F&& f) {
  const int count = tile.units * plan.sizes.b;
  for (int e = team.rank * step; e < count; e += team.size * step) {
    const int after = plan.features.quotient(tile.feature + e);
    f(e, shape.prefix + tile.token + after, tile.feature + e - after * plan.features.by);
  }
}

// The tile's blocks of a row x to z[padded(first)] and on.
template <bool kLarge, class Storage, class T>
__device__ __forceinline__ void load_blocks(const Team<kLarge>& team, const Tokens& shape,
                                            const CirculantPlan& plan, const CirculantTile& tile,
                                            const Storage* x, int64_t x_token, Cell<T>* z,
                                            int first) {
  constexpr int kPack = Pack<Storage>::count;
  if (plan.wide) {
    for_elements(team, shape, plan, tile, kPack, [&](int e, int64_t n, int feature) {
      const Pack<Storage> pack = load_pack(x + n * x_token + feature);
      LIEROPE_UNROLL
      for (int i = 0; i < kPack; i += 2)
        z[padded(first + (e + i) / 2)] = Cell<T>{widen(pack.v[i]), widen(pack.v[i + 1])};
    });
    return;
  }
  for_elements(team, shape, plan, tile, 1, [&](int e, int64_t n, int feature) {
    const T value = widen(x[n * x_token + feature]);
    if (!plan.sizes.even())
      z[padded(first + e)] = Cell<T>{value, T(0)};
    else
      (e % 2 == 0 ? z[padded(first + e / 2)].re : z[padded(first + e / 2)].im) = value;
  });
}

template <bool kLarge, class Storage, class T>
__device__ __forceinline__ void store_blocks(const Team<kLarge>& team, const Tokens& shape,
                                             const CirculantPlan& plan, const CirculantTile& tile,
                                             const Cell<T>* z, int first, Storage* y,
                                             int64_t y_token) {
  constexpr int kPack = Pack<Storage>::count;
  if (plan.wide) {
    for_elements(team, shape, plan, tile, kPack, [&](int e, int64_t n, int feature) {
      Pack<Storage> pack;
      LIEROPE_UNROLL
      for (int i = 0; i < kPack; i += 2) {
        const Cell<T> cell = z[padded(first + (e + i) / 2)];
        pack.v[i] = narrow<Storage>(cell.re);
        pack.v[i + 1] = narrow<Storage>(cell.im);
      }
      store_pack(y + n * y_token + feature, pack);
    });
    return;
  }
  for_elements(team, shape, plan, tile, 1, [&](int e, int64_t n, int feature) {
    const Cell<T>& cell = z[padded(first + (plan.sizes.even() ? e / 2 : e))];
    y[n * y_token + feature] = narrow<Storage>(plan.sizes.even() && e % 2 != 0 ? cell.im : cell.re);
  });
}

}  // namespace lierope::cuda
