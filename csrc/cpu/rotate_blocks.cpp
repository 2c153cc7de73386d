// rotate_blocks and its adjoint: one pass over q and k, each rotation read once for all that share
// it.
#include "../params/rotate_blocks.h"

#include "../parallel.h"
#include "blocks_by_product.h"
#include "blocks_in_lanes.h"
#include "scratch.h"

namespace lierope::cpu::LIEROPE_ISA {
namespace {

constexpr int64_t kCacheBytes = 24 * 1024, kMostTokens = 64;

// The rows at token n that share rotation r among `heads`, batch elements [b0, b1): a head's batch
// when the rotations are shared, else the heads of one sample.
template <class F>
LIEROPE_HD void for_runs(const Tokens& shape, int64_t heads, int64_t r, int64_t b0, int64_t b1,
                         F&& f) {
  const int64_t each = heads / shape.rotation_heads;
  if (shape.per_sample) {
    f(b0, r * each, each, false);
  } else {
    for (int64_t h = r * each; h < (r + 1) * each; ++h) f(b0, h, b1 - b0, true);
  }
}

template <class Storage>
LIEROPE_HD Run<Storage> run_at(const Tokens& shape, const View& view, void* out, int64_t heads,
                               int64_t b, int64_t h, int64_t n, int64_t count, bool over_batch) {
  const auto x = reads<Storage>(view);
  const auto y = writes<Storage>(shape, out, heads);
  return {x.at(b, h, n), y.at(b, h, n), over_batch ? x.batch : x.head,
          over_batch ? y.batch : y.head, count};
}

template <class Storage>
LIEROPE_HD void copy_rows(const Run<Storage>& run, int64_t begin, int64_t end) {
  for (int64_t i = 0; begin < end && i < run.count; ++i)
    copy_row(run.in + i * run.in_stride, run.out + i * run.out_stride, begin, end);
}

// Asks for the rows that come after batch elements [b0, b1) of head h and token n: the next
// elements, else the first ones of the next token.
template <class AnyRows>
LIEROPE_HD void prefetch_next(const Tokens& shape, const AnyRows& rows, int64_t b0, int64_t b1,
                              int64_t h, int64_t n) {
  const int64_t begin = b1 < shape.batch ? b1 : 0, token = b1 < shape.batch ? n : n + 1;
  const int64_t end = token < shape.tokens ? smaller(begin + b1 - b0, shape.batch) : begin;
  for (int64_t b = begin; b < end; ++b) prefetch_row(rows.at(b, h, token), shape.head_dim);
}

// Everything that forward and adjoint share: tiles of rotations, each prepared once.
template <class Storage, class Params, class F>
void for_tiles(const Params& p, const Blocks<Storage>& blocks, bool transposed, F&& f) {
  using T = Compute<Storage>;
  const Tokens& shape = p.shape;
  const Tiling tiling(shape, p.q, blocks.size() * int64_t(sizeof(T)), kCacheBytes, kMostTokens);
  const int64_t tiles = tiling.count(), points = shape.tokens - shape.prefix;
  const int64_t each = p.blocks * p.block_size * p.block_size;
  const int64_t samples = shape.per_sample ? shape.batch : 1;
  parallel_for(samples * tiles, 1, [&](int64_t begin, int64_t end) {
    Scratch<T> coefficients(tiling.size() * blocks.size());
    for (int64_t item = begin; item < end; ++item) {
      const Tile tile = tiling[item % tiles];
      const T* rotations = sample_of<T>(p.rotations, shape, each, item / tiles);
      tiling.for_rotations(tile, [&](int64_t r, int64_t n) {
        if (n >= shape.prefix)
          blocks.prepare(rotations + (r * points + n - shape.prefix) * each,
                         coefficients + index_in(tile, r, n) * blocks.size(), transposed);
      });
      f(tiling, tile, item / tiles, coefficients);
    }
  });
}

template <class Storage>
void forward(const RotateBlocksParams& p, const Blocks<Storage>& blocks) {
  using T = Compute<Storage>;
  const Tokens& shape = p.shape;
  const int64_t rotated = p.blocks * p.block_size;
  for_tiles<Storage>(
      p, blocks, p.transpose,
      [&](const Tiling& tiling, const Tile& tile, int64_t sample, const T* table) {
        Scratch<T> staged(blocks.staging());
        auto rotate = [&](const View& view, void* out, int64_t heads, int64_t b0, int64_t b1) {
          tiling.for_rotations(tile, [&](int64_t r, int64_t n) {
            const T* coefficients = table + index_in(tile, r, n) * blocks.size();
            for_runs(shape, heads, r, b0, b1, [&](int64_t b, int64_t h, int64_t count, bool batch) {
              const auto run = run_at<Storage>(shape, view, out, heads, b, h, n, count, batch);
              if (n < shape.prefix) return copy_rows(run, 0, shape.head_dim);
              if (batch) {
                prefetch_next(shape, reads<Storage>(view), b0, b1, h, n);
                prefetch_next(shape, writes<Storage>(shape, out, heads), b0, b1, h, n);
              }
              blocks.rotate(run, coefficients, staged);
              copy_rows(run, rotated, shape.head_dim);
            });
          });
        };
        const int64_t last = shape.per_sample ? sample + 1 : shape.batch;
        for (int64_t b = sample; b < last; b += blocks.rows_at_once()) {
          const int64_t b1 = smaller(b + blocks.rows_at_once(), last);
          rotate(p.q, p.q_out, shape.q_heads, b, b1);
          rotate(p.k, p.k_out, shape.k_heads, b, b1);
        }
      });
}

template <class Storage>
void backward(const RotateBlocksBackwardParams& p, const Blocks<Storage>& blocks) {
  using T = Compute<Storage>;
  const Tokens& shape = p.shape;
  const int64_t rotated = p.blocks * p.block_size, points = shape.tokens - shape.prefix;
  for_tiles<Storage>(
      p, blocks, true, [&](const Tiling& tiling, const Tile& tile, int64_t sample, const T* table) {
        Scratch<T> staged(blocks.staging()), sums(tiling.size() * blocks.size());
        std::memset(sums, 0, size_t(tiling.size() * blocks.size()) * sizeof(T));
        auto rotate = [&](const View& view, const View& grad, void* out, int64_t heads, int64_t b0,
                          int64_t b1) {
          const auto x = reads<Storage>(view);
          tiling.for_rotations(tile, [&](int64_t r, int64_t n) {
            const int64_t at = index_in(tile, r, n) * blocks.size();
            for_runs(shape, heads, r, b0, b1, [&](int64_t b, int64_t h, int64_t count, bool batch) {
              const auto run = run_at<Storage>(shape, grad, out, heads, b, h, n, count, batch);
              if (n < shape.prefix) return copy_rows(run, 0, shape.head_dim);
              const int64_t x_stride = batch ? x.batch : x.head;
              if (batch) {
                prefetch_next(shape, x, b0, b1, h, n);
                prefetch_next(shape, reads<Storage>(grad), b0, b1, h, n);
                prefetch_next(shape, writes<Storage>(shape, out, heads), b0, b1, h, n);
              }
              blocks.adjoint(run, x.at(b, h, n), x_stride, table + at, sums + at, staged);
              copy_rows(run, rotated, shape.head_dim);
            });
          });
        };
        // One thread sums a tile over batch, then heads: always in the same order.
        const int64_t last = shape.per_sample ? sample + 1 : shape.batch;
        for (int64_t b = sample; b < last; b += blocks.rows_at_once()) {
          const int64_t b1 = smaller(b + blocks.rows_at_once(), last);
          rotate(p.q, p.q_grad, p.q_out, shape.q_heads, b, b1);
          rotate(p.k, p.k_grad, p.k_out, shape.k_heads, b, b1);
        }
        const int64_t each = p.blocks * p.block_size * p.block_size;
        T* out = sample_of<T>(p.rotations_out, shape, each, sample);
        tiling.for_rotations(tile, [&](int64_t r, int64_t n) {
          if (n >= shape.prefix)
            blocks.write_sums(sums + index_in(tile, r, n) * blocks.size(),
                              out + (r * points + n - shape.prefix) * each);
        });
      });
}

// Calls f with what serves blocks of b features best.
template <class Storage, class F>
void with_blocks(int64_t count, int64_t b, F&& f) {
  constexpr int L = kLanes<Compute<Storage>>;
  if (b == 2) return f(BlocksInLanes<Storage, 2>(count));
  if constexpr (L >= 4) {
    if (b == 4) return f(BlocksInLanes<Storage, 4>(count));
  }
  if constexpr (L >= 8) {
    if (b == 8) return f(BlocksInLanes<Storage, 8>(count));
  }
  if constexpr (L >= 16) {
    if (b == 16) return f(BlocksInLanes<Storage, 16>(count));
  }
  f(BlocksByProduct<Storage>(count, b));
}

}  // namespace

void rotate_blocks(const RotateBlocksParams& p);
void rotate_blocks(const RotateBlocksParams& p) {
  with_storage(p.shape.dtype, [&](auto element) {
    using Storage = decltype(element);
    with_blocks<Storage>(p.blocks, p.block_size,
                         [&](const Blocks<Storage>& blocks) { forward<Storage>(p, blocks); });
  });
}

void rotate_blocks_backward(const RotateBlocksBackwardParams& p);
void rotate_blocks_backward(const RotateBlocksBackwardParams& p) {
  with_storage(p.shape.dtype, [&](auto element) {
    using Storage = decltype(element);
    with_blocks<Storage>(p.blocks, p.block_size,
                         [&](const Blocks<Storage>& blocks) { backward<Storage>(p, blocks); });
  });
}

}  // namespace lierope::cpu::LIEROPE_ISA
