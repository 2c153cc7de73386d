// rotate_pairs and its adjoint: one pass over q and k, sine and cosine once per token and rotation
// head.
#include "../params/rotate_pairs.h"

#include "../math/sincos.h"
#include "../parallel.h"
#include "convert.h"
#include "rows.h"
#include "scratch.h"

namespace lierope::cpu::LIEROPE_ISA {
namespace {

// Cosines and sines of one token and rotation head, in the order in which a row meets them:
// interleaved (c0, c0, c1, c1, ...) and (-s0, s0, -s1, s1, ...), else (c0, c1, ...) and (s0, s1,
// ...).
template <class T>
struct Turn {
  T* cosine;
  T* sine;
};

// The turns of a tile. They stay in the first-level cache while the batch goes by.
template <class T, bool interleaved>
class Turns {
 public:
  static constexpr int L = kLanes<T>;
  static constexpr int64_t kCacheBytes = 24 * 1024, kMostTokens = 64;

  explicit Turns(int64_t pairs) : pairs_(pairs) {
    width_ = ((interleaved ? 2 : 1) * pairs + 2 * L - 1) / (2 * L) * (2 * L);
  }
  int64_t width() const { return width_; }
  Turn<T> at(T* table, int64_t index) const {
    T* turn = table + index * 2 * width_;
    return {turn, turn + width_};
  }
  Tiling tiling(const Tokens& shape, const View& q) const {
    return {shape, q, 2 * width_ * int64_t(sizeof(T)), kCacheBytes, kMostTokens};
  }

  // angles: (rotations, points, pairs).
  void fill(T* table, const T* angles, const Tokens& shape, const Tile& tile, T sign) const {
    const int64_t points = shape.tokens - shape.prefix;
    for (int64_t r = tile.r0; r < tile.r1; ++r)
      for (int64_t n = larger(tile.n0, shape.prefix); n < tile.n1; ++n)
        fill_one(at(table, index_in(tile, r, n)), angles + (r * points + n - shape.prefix) * pairs_,
                 sign);
  }

 private:
  void fill_one(Turn<T> turn, const T* angles, T sign) const {
    for (int64_t i = 0; i < pairs_; i += L) {
      Vec<T> s, c;
      math::sincos(load_wide(angles + i, pairs_ - i < L ? pairs_ - i : L), &s, &c);
      s = s * sign;
      if constexpr (interleaved) {
        twice(turn.cosine + 2 * i, c, c, std::make_integer_sequence<int, L>());
        twice(turn.sine + 2 * i, -s, s, std::make_integer_sequence<int, L>());
      } else {
        store<T>(turn.cosine + i, c);
        store<T>(turn.sine + i, s);
      }
    }
  }
  // Writes (a0, b0, a1, b1, ...).
  template <int... I>
  static void twice(T* p, Vec<T> a, Vec<T> b, std::integer_sequence<int, I...>) {
    store<T>(p, __builtin_shufflevector(a, b, (I / 2 + (I % 2) * L)...));
    store<T>(p + L, __builtin_shufflevector(a, b, (L / 2 + I / 2 + (I % 2) * L)...));
  }

  int64_t pairs_, width_;
};

// (x1, x0, x3, x2, ...)
template <class T, int... I>
LIEROPE_HD Vec<T> swap_pairs(Vec<T> x, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(x, x, (I ^ 1)...);
}
template <class T>
LIEROPE_HD Vec<T> swap_pairs(Vec<T> x) {
  return swap_pairs<T>(x, std::make_integer_sequence<int, kLanes<T>>());
}
// (a0 - a1, a2 - a3, ..., b0 - b1, ...)
template <class T, int... I>
LIEROPE_HD Vec<T> differences(Vec<T> a, Vec<T> b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (2 * I)...) - __builtin_shufflevector(a, b, (2 * I + 1)...);
}

template <class Storage, bool interleaved>
LIEROPE_HD void rotate_row(const Storage* x, Storage* y, Turn<Compute<Storage>> turn,
                           int64_t pairs) {
  using T = Compute<Storage>;
  if constexpr (interleaved) {
    for_vectors<kLanes<T>>(2 * pairs, [&](int64_t i, auto count) {
      const Vec<T> v = load_wide(x + i, count);
      store_narrow(y + i, v * load<T>(turn.cosine + i) + swap_pairs<T>(v) * load<T>(turn.sine + i),
                   count);
    });
  } else {
    for_vectors<kLanes<T>>(pairs, [&](int64_t i, auto count) {
      const Vec<T> c = load<T>(turn.cosine + i), s = load<T>(turn.sine + i);
      const Vec<T> v0 = load_wide(x + i, count), v1 = load_wide(x + pairs + i, count);
      store_narrow(y + i, v0 * c - v1 * s, count);
      store_narrow(y + pairs + i, v0 * s + v1 * c, count);
    });
  }
}

// x_grad = R^T y_grad; adds y0 y_grad1 - y1 y_grad0, the gradient of the angle: its two terms side
// by side when interleaved, their difference else.
template <class Storage, bool interleaved>
LIEROPE_HD void adjoint_row(const Storage* y, const Storage* y_grad, Storage* x_grad,
                            Turn<Compute<Storage>> turn, Compute<Storage>* sums, int64_t pairs) {
  using T = Compute<Storage>;
  if constexpr (interleaved) {
    for_vectors<kLanes<T>>(2 * pairs, [&](int64_t i, auto count) {
      const Vec<T> g = load_wide(y_grad + i, count), s = load<T>(turn.sine + i);
      const Vec<T> swapped = swap_pairs<T>(g);
      store_narrow(x_grad + i, g * load<T>(turn.cosine + i) - swapped * s, count);
      store<T>(sums + i, load<T>(sums + i) + load_wide(y + i, count) * swapped);
    });
  } else {
    for_vectors<kLanes<T>>(pairs, [&](int64_t i, auto count) {
      const Vec<T> c = load<T>(turn.cosine + i), s = load<T>(turn.sine + i);
      const Vec<T> g0 = load_wide(y_grad + i, count), g1 = load_wide(y_grad + pairs + i, count);
      store_narrow(x_grad + i, g0 * c + g1 * s, count);
      store_narrow(x_grad + pairs + i, g1 * c - g0 * s, count);
      store<T>(sums + i, load<T>(sums + i) + load_wide(y + i, count) * g1 -
                             load_wide(y + pairs + i, count) * g0);
    });
  }
}

template <class T, bool interleaved>
void write_sums(const T* sums, T* out, int64_t pairs) {
  constexpr int L = kLanes<T>;
  for (int64_t i = 0; i < pairs; i += L) {
    Vec<T> v;
    if constexpr (interleaved)
      v = differences<T>(load<T>(sums + 2 * i), load<T>(sums + 2 * i + L),
                         std::make_integer_sequence<int, L>());
    else
      v = load<T>(sums + i);
    store_narrow<T>(out + i, v, pairs - i < L ? pairs - i : L);
  }
}

template <class Storage, bool interleaved>
void forward(const RotatePairsParams& p) {
  using T = Compute<Storage>;
  const Tokens& shape = p.shape;
  const Turns<T, interleaved> turns(p.pairs);
  const Tiling tiling = turns.tiling(shape, p.q);
  const int64_t last = shape.per_sample ? 0 : shape.batch;

  auto rotate = [&](const View& view, void* out, int64_t heads, T* table, int64_t b,
                    const Tile& tile) {
    const auto x = reads<Storage>(view);
    const auto y = writes<Storage>(shape, out, heads);
    tiling.for_rows(tile, heads, [&](int64_t r, int64_t h, int64_t n) {
      const Storage* from = x.at(b, h, n);
      Storage* to = y.at(b, h, n);
      if (n < shape.prefix) return copy_row(from, to, 0, shape.head_dim);
      if (b + 1 < last) {
        prefetch_row(from + x.batch, shape.head_dim);
        prefetch_row(to + y.batch, shape.head_dim);
      }
      rotate_row<Storage, interleaved>(from, to, turns.at(table, index_in(tile, r, n)), p.pairs);
      copy_row(from, to, 2 * p.pairs, shape.head_dim);
    });
  };

  // Shared angles: the batch runs inside, so that a tile's turns serve all of it.
  const int64_t tiles = tiling.count();
  const int64_t rows = tiling.size() * (shape.q_heads + shape.k_heads) / shape.rotation_heads;
  const int64_t grain = larger(1, 32768 / larger(1, rows * shape.head_dim));
  parallel_for(tiles * shape.batch, grain, [&](int64_t begin, int64_t end) {
    Scratch<T> table(tiling.size() * 2 * turns.width());
    int64_t filled = -1;
    for (int64_t item = begin; item < end; ++item) {
      const int64_t b = shape.per_sample ? item / tiles : item % shape.batch;
      const int64_t which = shape.per_sample ? item % tiles : item / shape.batch;
      const Tile tile = tiling[which];
      if (shape.per_sample || which != filled) {
        turns.fill(table, sample_of<T>(p.angles, shape, p.pairs, b), shape, tile,
                   p.inverse ? T(-1) : T(1));
        filled = which;
      }
      rotate(p.q, p.q_out, shape.q_heads, table, b, tile);
      rotate(p.k, p.k_out, shape.k_heads, table, b, tile);
    }
  });
}

template <class Storage, bool interleaved>
void backward(const RotatePairsBackwardParams& p) {
  using T = Compute<Storage>;
  const Tokens& shape = p.shape;
  const Turns<T, interleaved> turns(p.pairs);
  const Tiling tiling = turns.tiling(shape, p.q_rotated);
  const int64_t last = shape.per_sample ? 0 : shape.batch;
  const int64_t width = turns.width(), points = shape.tokens - shape.prefix;

  auto rotate = [&](const View& view, const View& grad, void* out, int64_t heads, T* table, T* sums,
                    int64_t b, const Tile& tile) {
    const auto y = reads<Storage>(view), y_grad = reads<Storage>(grad);
    const auto x_grad = writes<Storage>(shape, out, heads);
    tiling.for_rows(tile, heads, [&](int64_t r, int64_t h, int64_t n) {
      const Storage* from = y_grad.at(b, h, n);
      Storage* to = x_grad.at(b, h, n);
      if (n < shape.prefix) return copy_row(from, to, 0, shape.head_dim);
      if (b + 1 < last) {
        prefetch_row(y.at(b + 1, h, n), shape.head_dim);
        prefetch_row(from + y_grad.batch, shape.head_dim);
        prefetch_row(to + x_grad.batch, shape.head_dim);
      }
      const int64_t index = index_in(tile, r, n);
      adjoint_row<Storage, interleaved>(y.at(b, h, n), from, to, turns.at(table, index),
                                        sums + index * width, p.pairs);
      copy_row(from, to, 2 * p.pairs, shape.head_dim);
    });
  };

  // One thread sums a tile over batch, then heads: always in the same order.
  const int64_t tiles = tiling.count(), shared = shape.per_sample ? 1 : shape.batch;
  parallel_for(shape.per_sample ? tiles * shape.batch : tiles, 1, [&](int64_t begin, int64_t end) {
    Scratch<T> table(tiling.size() * 2 * width), sums(tiling.size() * width);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t sample = item / tiles;
      const Tile tile = tiling[item % tiles];
      turns.fill(table, sample_of<T>(p.angles, shape, p.pairs, sample), shape, tile, T(1));
      std::memset(sums, 0, size_t(tiling.size() * width) * sizeof(T));
      for (int64_t b = sample; b < sample + shared; ++b) {
        rotate(p.q_rotated, p.q_grad, p.q_out, shape.q_heads, table, sums, b, tile);
        rotate(p.k_rotated, p.k_grad, p.k_out, shape.k_heads, table, sums, b, tile);
      }
      T* out = sample_of<T>(p.angles_out, shape, p.pairs, sample);
      for (int64_t r = tile.r0; r < tile.r1; ++r)
        for (int64_t n = larger(tile.n0, shape.prefix); n < tile.n1; ++n)
          write_sums<T, interleaved>(sums + index_in(tile, r, n) * width,
                                     out + (r * points + n - shape.prefix) * p.pairs, p.pairs);
    }
  });
}

}  // namespace

void rotate_pairs(const RotatePairsParams& p);
void rotate_pairs(const RotatePairsParams& p) {
  with_storage(p.shape.dtype, [&](auto element) {
    using Storage = decltype(element);
    p.interleaved ? forward<Storage, true>(p) : forward<Storage, false>(p);
  });
}

void rotate_pairs_backward(const RotatePairsBackwardParams& p);
void rotate_pairs_backward(const RotatePairsBackwardParams& p) {
  with_storage(p.shape.dtype, [&](auto element) {
    using Storage = decltype(element);
    p.interleaved ? backward<Storage, true>(p) : backward<Storage, false>(p);
  });
}

}  // namespace lierope::cpu::LIEROPE_ISA
