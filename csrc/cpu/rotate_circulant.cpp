// rotate_circulant and its adjoint: a vector of tokens at a time through FFT, phases and inverse.
#include "../params/rotate_circulant.h"

#include <new>

#include "../math/sincos.h"
#include "../parallel.h"
#include "circulant_plan.h"
#include "scratch.h"
#include "token_lanes.h"

namespace lierope::cpu::LIEROPE_ISA {
namespace {

constexpr int64_t kCacheBytes = 256 * 1024;  // for the phases of the heads that a tile takes

// Points [m0, m0 + L) and rotations [r0, r1) of one sample.
struct PointTile {
  int64_t m0, points, r0, r1;
};

template <class Storage>
class Circulant {
 public:
  using T = Compute<Storage>;
  using V = Vec<T>;
  static constexpr int L = kLanes<T>;

  Circulant(const Tokens& tokens, int64_t blocks, int64_t b)
      : shape(tokens), plan_(circulant_plan<T>(b)), blocks_(blocks) {
    modes = blocks * plan_.modes;
    features = blocks * b;
    padded_modes_ = (modes + L - 1) / L * L;
    points_ = shape.tokens - shape.prefix;
    const int64_t fit = kCacheBytes / larger(phases_size() * int64_t(sizeof(V)), 1);
    tile_rotations = smaller(larger(fit, 1), shape.rotation_heads);
    point_tiles_ =
        larger((points_ + L - 1) / L, smaller(shape.tokens, 1));  // one for a prefix alone
    tiles = point_tiles_ * ((shape.rotation_heads + tile_rotations - 1) / tile_rotations);
  }
  int64_t phases_size() const { return 2 * padded_modes_; }
  int64_t sums_size() const { return padded_modes_; }
  int64_t row_size() const { return (features + L - 1) / L * L; }
  int64_t work_size() const { return plan_.b % 2 == 0 ? 0 : 4 * plan_.b; }

  PointTile tile(int64_t i) const {
    const int64_t m0 = i % point_tiles_ * L, r0 = i / point_tiles_ * tile_rotations;
    return {m0, smaller(L, points_ - m0), r0, smaller(r0 + tile_rotations, shape.rotation_heads)};
  }

  // angles: (rotations, points, modes); `lanes` has phases_size() elements.
  void prepare(const T* angles, const PointTile& tile, int64_t r, T sign, V* lanes) const {
    V* angle = lanes + padded_modes_;  // overwritten from the front
    to_lanes(angles + (r * points_ + tile.m0) * modes, modes, tile.points, modes, angle);
    for (int64_t m = 0; m < modes; ++m) {
      V sine, cosine;
      math::sincos(angle[m], &sine, &cosine);
      lanes[2 * m] = cosine * plan_.scale;
      lanes[2 * m + 1] = sine * (sign * plan_.scale);
    }
  }

  void rotate(V* row, const V* phases, V* work) const {
    for (int64_t g = 0; g < blocks_; ++g) {
      V* x = row + g * plan_.b;
      V* z = widen_odd(x, work);
      math::fft_forward(plan_.fft, z);
      math::turn_spectrum(plan_, math::Phases<V>{phases + 2 * g * plan_.modes}, z);
      math::fft_backward(plan_.fft, z);
      narrow_odd(z, x);
    }
  }
  void adjoint(V* grad, V* row, const V* phases, V* sums, V* work) const {
    for (int64_t g = 0; g < blocks_; ++g) {
      V* y = widen_odd(row + g * plan_.b, work);
      V* z = widen_odd(grad + g * plan_.b, work + 2 * plan_.b);
      math::fft_forward(plan_.fft, y);
      math::fft_forward(plan_.fft, z);
      math::turn_spectrum_adjoint(plan_, math::Phases<V>{phases + 2 * g * plan_.modes}, z, y,
                                  sums + g * plan_.modes);
      math::fft_backward(plan_.fft, z);
      narrow_odd(z, grad + g * plan_.b);
    }
  }
  void write_sums(V* sums, const PointTile& tile, int64_t r, T* angles_out) const {
    from_lanes(sums, angles_out + (r * points_ + tile.m0) * modes, modes, tile.points, modes);
  }

  const Tokens& shape;
  int64_t modes, features, tile_rotations, tiles;

 private:
  V* widen_odd(V* x, V* work) const {
    if (plan_.b % 2 == 0) return x;
    for (int64_t i = 0; i < plan_.b; ++i) {
      work[2 * i] = x[i];
      work[2 * i + 1] = V{};
    }
    return work;
  }
  void narrow_odd(const V* z, V* x) const {
    for (int64_t i = 0; z != x && i < plan_.b; ++i) x[i] = z[2 * i];
  }

  const math::CirculantPlan<T>& plan_;
  int64_t blocks_, padded_modes_, points_, point_tiles_;
};

// Calls f(head, rotation) for the heads of a tile, and copies what no rotation touches.
template <class Storage, class F>
void for_heads(const Circulant<Storage>& circulant, const PointTile& tile,
               const Rows<const Storage>& x, const Rows<Storage>& y, int64_t b, int64_t heads,
               F&& f) {
  const Tokens& shape = circulant.shape;
  const int64_t each = heads / shape.rotation_heads;
  for (int64_t h = tile.r0 * each; h < tile.r1 * each; ++h) {
    for (int64_t n = 0; tile.m0 == 0 && n < shape.prefix; ++n)
      copy_row(x.at(b, h, n), y.at(b, h, n), 0, shape.head_dim);
    if (tile.points <= 0) continue;
    f(h, h / each);
    for (int64_t i = 0; i < tile.points; ++i) {
      const int64_t n = shape.prefix + tile.m0 + i;
      copy_row(x.at(b, h, n), y.at(b, h, n), circulant.features, shape.head_dim);
    }
  }
}

// Asks for the next head's rows: the transposition to lanes waits for all of a tile's rows at once.
template <class Storage, class AnyRows>
LIEROPE_HD void prefetch_next(const Circulant<Storage>& circulant, const PointTile& tile,
                              const AnyRows& rows, int64_t b, int64_t heads, int64_t h) {
  const int64_t each = heads / circulant.shape.rotation_heads;
  if (h + 1 >= tile.r1 * each) return;
  for (int64_t i = 0; i < tile.points; ++i)
    prefetch_row(rows.at(b, h + 1, circulant.shape.prefix + tile.m0 + i), circulant.features);
}

template <class Storage>
void forward(const RotateCirculantParams& p) {
  using T = Compute<Storage>;
  using V = Vec<T>;
  const Tokens& shape = p.shape;
  const Circulant<Storage> circulant(shape, p.blocks, p.block_size);
  const int64_t phases_size = circulant.phases_size();

  const int64_t samples = shape.per_sample ? shape.batch : 1;
  const int64_t shared = shape.per_sample ? 1 : shape.batch;
  parallel_for(samples * circulant.tiles, 1, [&](int64_t begin, int64_t end) {
    Scratch<V> phases(circulant.tile_rotations * phases_size), row(circulant.row_size());
    Scratch<V> work(circulant.work_size());
    for (int64_t item = begin; item < end; ++item) {
      const int64_t sample = item / circulant.tiles;
      const PointTile tile = circulant.tile(item % circulant.tiles);
      const T* angles = sample_of<T>(p.angles, shape, circulant.modes, sample);
      for (int64_t r = tile.r0; r < tile.r1; ++r)
        circulant.prepare(angles, tile, r, p.inverse ? T(-1) : T(1),
                          phases + (r - tile.r0) * phases_size);
      auto rotate = [&](const View& view, void* out, int64_t heads, int64_t b) {
        const auto x = reads<Storage>(view);
        const auto y = writes<Storage>(shape, out, heads);
        const int64_t n = shape.prefix + tile.m0;
        for_heads(circulant, tile, x, y, b, heads, [&](int64_t h, int64_t r) {
          prefetch_next(circulant, tile, x, b, heads, h);
          prefetch_next(circulant, tile, y, b, heads, h);
          to_lanes(x.at(b, h, n), x.token, tile.points, circulant.features, row);
          circulant.rotate(row, phases + (r - tile.r0) * phases_size, work);
          from_lanes(row, y.at(b, h, n), y.token, tile.points, circulant.features);
        });
      };
      for (int64_t b = sample; b < sample + shared; ++b) {
        rotate(p.q, p.q_out, shape.q_heads, b);
        rotate(p.k, p.k_out, shape.k_heads, b);
      }
    }
  });
}

template <class Storage>
void backward(const RotateCirculantBackwardParams& p) {
  using T = Compute<Storage>;
  using V = Vec<T>;
  const Tokens& shape = p.shape;
  const Circulant<Storage> circulant(shape, p.blocks, p.block_size);
  const int64_t phases_size = circulant.phases_size(), sums_size = circulant.sums_size();

  const int64_t samples = shape.per_sample ? shape.batch : 1;
  const int64_t shared = shape.per_sample ? 1 : shape.batch;
  parallel_for(samples * circulant.tiles, 1, [&](int64_t begin, int64_t end) {
    Scratch<V> phases(circulant.tile_rotations * phases_size), row(circulant.row_size());
    Scratch<V> sums(circulant.tile_rotations * sums_size), grad_row(circulant.row_size());
    Scratch<V> work(circulant.work_size());
    for (int64_t item = begin; item < end; ++item) {
      const int64_t sample = item / circulant.tiles;
      const PointTile tile = circulant.tile(item % circulant.tiles);
      const T* angles = sample_of<T>(p.angles, shape, circulant.modes, sample);
      for (int64_t r = tile.r0; r < tile.r1; ++r)
        circulant.prepare(angles, tile, r, T(1), phases + (r - tile.r0) * phases_size);
      for (int64_t i = 0; i < circulant.tile_rotations * sums_size; ++i) sums[i] = V{};
      auto rotate = [&](const View& view, const View& grad, void* out, int64_t heads, int64_t b) {
        const auto y = reads<Storage>(view), y_grad = reads<Storage>(grad);
        const auto x_grad = writes<Storage>(shape, out, heads);
        const int64_t n = shape.prefix + tile.m0;
        for_heads(circulant, tile, y_grad, x_grad, b, heads, [&](int64_t h, int64_t r) {
          prefetch_next(circulant, tile, y, b, heads, h);
          prefetch_next(circulant, tile, y_grad, b, heads, h);
          prefetch_next(circulant, tile, x_grad, b, heads, h);
          to_lanes(y.at(b, h, n), y.token, tile.points, circulant.features, row);
          to_lanes(y_grad.at(b, h, n), y_grad.token, tile.points, circulant.features, grad_row);
          circulant.adjoint(grad_row, row, phases + (r - tile.r0) * phases_size,
                            sums + (r - tile.r0) * sums_size, work);
          from_lanes(grad_row, x_grad.at(b, h, n), x_grad.token, tile.points, circulant.features);
        });
      };
      // One thread sums a tile over batch, then heads: always in the same order.
      for (int64_t b = sample; b < sample + shared; ++b) {
        rotate(p.q_rotated, p.q_grad, p.q_out, shape.q_heads, b);
        rotate(p.k_rotated, p.k_grad, p.k_out, shape.k_heads, b);
      }
      T* out = sample_of<T>(p.angles_out, shape, circulant.modes, sample);
      for (int64_t r = tile.r0; tile.points > 0 && r < tile.r1; ++r)
        circulant.write_sums(sums + (r - tile.r0) * sums_size, tile, r, out);
    }
  });
}

}  // namespace

void rotate_circulant(const RotateCirculantParams& p);
void rotate_circulant(const RotateCirculantParams& p) {
  with_storage(p.shape.dtype, [&](auto element) { forward<decltype(element)>(p); });
}

void rotate_circulant_backward(const RotateCirculantBackwardParams& p);
void rotate_circulant_backward(const RotateCirculantBackwardParams& p) {
  with_storage(p.shape.dtype, [&](auto element) { backward<decltype(element)>(p); });
}

}  // namespace lierope::cpu::LIEROPE_ISA
