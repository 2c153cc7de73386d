// Rows of features of q or k: where each lies, what is read and what is written.
#pragma once
#include <cstdint>
#include <cstring>

#include "../math/portable.h"
#include "../params/tokens.h"

namespace lierope::cpu::LIEROPE_ISA {

// Addresses in a strided (B, H, N, D) tensor whose last stride is 1.
template <class Storage>
struct Rows {
  Storage* data;
  int64_t batch, head, token;  // strides

  LIEROPE_HD Storage* at(int64_t b, int64_t h, int64_t n) const {
    return data + b * batch + h * head + n * token;
  }
};

template <class Storage>
LIEROPE_HD Rows<const Storage> reads(const View& view) {
  return {static_cast<const Storage*>(view.data), view.stride_batch, view.stride_head,
          view.stride_token};
}
template <class Storage>
LIEROPE_HD Rows<Storage> writes(const Tokens& shape, void* out, int64_t heads) {
  const int64_t d = shape.head_dim, batch = heads * shape.tokens * d;
  Storage* data = static_cast<Storage*>(out);
  if (shape.heads_side_by_side) return {data, batch, d, heads * d};
  return {data, batch, shape.tokens * d, d};
}

template <class Storage>
LIEROPE_HD void copy_row(const Storage* x, Storage* y, int64_t begin, int64_t end) {
  if (begin < end) std::memcpy(y + begin, x + begin, size_t(end - begin) * sizeof(Storage));
}

// Asks for the row that will be read or written when the next element of the batch comes: rows of
// one token lie too far apart for the processor to foresee.
template <class Storage>
LIEROPE_HD void prefetch_row(Storage* row, int64_t features) {
  constexpr int64_t kLine = 64 / sizeof(Storage);
  for (int64_t i = 0; i < features; i += kLine) __builtin_prefetch(row + i, 0, 2);
}

// What sample b uses of a ([B,] rotation heads, M, each) tensor.
template <class T, class Pointer>
LIEROPE_HD auto sample_of(Pointer data, const Tokens& shape, int64_t each, int64_t b) {
  const int64_t size = shape.rotation_heads * (shape.tokens - shape.prefix) * each;
  return static_cast<T*>(const_cast<void*>(static_cast<const void*>(data))) +
         (shape.per_sample ? b * size : 0);
}

LIEROPE_HD int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
LIEROPE_HD int64_t larger(int64_t a, int64_t b) { return a < b ? b : a; }

// A part of the work: rotations (heads of angles) [r0, r1) and tokens [n0, n1).
struct Tile {
  int64_t r0, r1, n0, n1;
};

// Where a tile's tables keep what belongs to rotation r and token n.
LIEROPE_HD int64_t index_in(const Tile& tile, int64_t r, int64_t n) {
  return (n - tile.n0) * (tile.r1 - tile.r0) + r - tile.r0;
}

// Tiles whose rotations, `bytes` for each token and rotation, fill the cache once and then serve
// the batch. They follow memory: timm's packed qkv has the heads of a token side by side, a
// contiguous q the tokens of a head.
class Tiling {
 public:
  Tiling(const Tokens& shape, const View& q, int64_t bytes, int64_t cache, int64_t most_tokens)
      : rotations(shape.rotation_heads), tokens(shape.tokens) {
    heads_side_by_side = q.stride_head < q.stride_token;
    const int64_t fit = larger(1, cache / larger(1, bytes));
    tile_rotations = heads_side_by_side ? smaller(fit, rotations) : 1;
    tile_tokens = smaller(larger(1, fit / tile_rotations), most_tokens);
  }
  int64_t size() const { return tile_rotations * tile_tokens; }
  int64_t count() const { return ceiling(rotations, tile_rotations) * token_tiles(); }
  Tile operator[](int64_t i) const {
    const int64_t r = i / token_tiles() * tile_rotations, n = i % token_tiles() * tile_tokens;
    return {r, smaller(r + tile_rotations, rotations), n, smaller(n + tile_tokens, tokens)};
  }
  // Calls f(rotation, token) for a tile, in that order of memory.
  template <class F>
  LIEROPE_HD void for_rotations(const Tile& tile, F&& f) const {
    if (heads_side_by_side) {
      for (int64_t n = tile.n0; n < tile.n1; ++n)
        for (int64_t r = tile.r0; r < tile.r1; ++r) f(r, n);
    } else {
      for (int64_t r = tile.r0; r < tile.r1; ++r)
        for (int64_t n = tile.n0; n < tile.n1; ++n) f(r, n);
    }
  }
  // Calls f(rotation, head, token) for a tile's rows among `heads`.
  template <class F>
  LIEROPE_HD void for_rows(const Tile& tile, int64_t heads, F&& f) const {
    const int64_t each = heads / rotations;
    if (heads_side_by_side) {
      for (int64_t n = tile.n0; n < tile.n1; ++n)
        for (int64_t r = tile.r0; r < tile.r1; ++r)
          for (int64_t h = r * each; h < (r + 1) * each; ++h) f(r, h, n);
    } else {
      for (int64_t r = tile.r0; r < tile.r1; ++r)
        for (int64_t h = r * each; h < (r + 1) * each; ++h)
          for (int64_t n = tile.n0; n < tile.n1; ++n) f(r, h, n);
    }
  }

  int64_t rotations, tokens, tile_rotations, tile_tokens;
  bool heads_side_by_side;

 private:
  static int64_t ceiling(int64_t a, int64_t b) { return (a + b - 1) / b; }
  int64_t token_tiles() const { return ceiling(tokens, tile_tokens); }
};

}  // namespace lierope::cpu::LIEROPE_ISA
