// cayley_rotate: by a product with P, or by a banded solve with tokens in the lanes.
#include "../math/cayley.h"
#include "../parallel.h"
#include "../params/cayley.h"
#include "gauss_jordan.h"
#include "panel_tokens.h"
#include "scratch.h"
#include "token_lanes.h"

namespace lierope::cpu::LIEROPE_ISA {
namespace {

// Rows x P^T (or x P) of each head, P formed once: n operations a feature, in full vectors, are
// less than the 4 w of a solve whose steps wait for each other, until the band is a small part of
// n.
constexpr bool forms_matrix(int64_t n, int64_t width) { return n <= 4 * (width + 1); }

template <class Storage>
void rotate_by_product(const CayleyRotateParams& p) {
  using T = Compute<Storage>;
  const int64_t n = p.n, width = (n + kLanes<T> - 1) / kLanes<T> * kLanes<T>, each = n * width;
  Scratch<T> matrices(p.s_heads * each);
  const GaussJordan inverse(n);
  parallel_for(p.s_heads, larger(1, 32768 / (n * n * n)), [&](int64_t begin, int64_t end) {
    Scratch<double> work(inverse.size());
    for (int64_t r = begin; r < end; ++r) {
      // P^T is the transform of -S.
      inverse.fill(static_cast<const T*>(p.s) + r * n * n, p.bandwidth, work, !p.transpose);
      Ahead nothing;
      inverse.run(work, nothing);
      inverse.write(work, matrices + r * each, width);
    }
  });

  const auto x = Rows<const Storage>{static_cast<const Storage*>(p.x.data), p.x.stride_batch,
                                     p.x.stride_head, p.x.stride_token};
  const int64_t tiles = (p.tokens + kTurnedAtOnce - 1) / kTurnedAtOnce;
  const int64_t grain = larger(1, 65536 / (kTurnedAtOnce * n));
  parallel_for(p.batch * p.heads * tiles, grain, [&](int64_t begin, int64_t end) {
    Scratch<T> in(kTurnedAtOnce * width), out(kTurnedAtOnce * width);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t row = item / tiles, h = row % p.heads, first = item % tiles * kTurnedAtOnce;
      const int64_t count = smaller(kTurnedAtOnce, p.tokens - first);
      const Storage* rows = x.at(row / p.heads, h, first);
      const T* matrix = matrices + h * p.s_heads / p.heads * each;
      Storage* y = static_cast<Storage*>(p.out) + (row * p.tokens + first) * n;
      if constexpr (std::is_same_v<Storage, T>) {
        if (width == n) {
          small_product<T, false>({rows, p.x.stride_token, 1, matrix, width, y, n, n}, count, n);
          continue;
        }
      }
      for (int64_t t = 0; t < count; ++t)
        gather(rows + t * p.x.stride_token, in + t * width, int(n));
      small_product<T, false>({in, width, 1, matrix, width, out, width, n}, count, width);
      for (int64_t t = 0; t < count; ++t) scatter(out + t * width, y + t * n, int(n));
    }
  });
}

// Consecutive tokens of one head, and how many follow them.
template <class Storage>
struct Strip {
  const Storage* x;
  Storage* y;
  int64_t tokens, after;
};

template <class Storage, int V>
void solve_strip(const CayleyRotateParams& p, const math::Band<Compute<Storage>>& band,
                 const Strip<Storage>& strip, Vec<Compute<Storage>>* work) {
  using T = Compute<Storage>;
  constexpr int L = kLanes<T>;
  const int64_t stride = p.x.stride_token, n = p.n;
  Vec<T>* solved = work + (n + L) * V;
  for (int v = 0; v < V; ++v)
    to_lanes(strip.x + v * L * stride, stride, smaller(L, strip.tokens - v * L), n, work + v, V);
  for (int64_t t = 0; t < strip.tokens; ++t) {
    prefetch_row(strip.y + t * n, n);
    if (t < strip.after) prefetch_row(strip.x + (strip.tokens + t) * stride, n);
  }
  math::cayley_solve<V>(band, work, solved);
  for (int v = 0; v < V; ++v)
    from_lanes(solved + v, strip.y + v * L * n, n, smaller(L, strip.tokens - v * L), n, V);
}

template <class Storage>
void rotate_by_solve(const CayleyRotateParams& p) {
  using T = Compute<Storage>;
  constexpr int L = kLanes<T>, V = 4;
  const int64_t width = smaller(p.bandwidth, p.n - 1), band_size = p.n * (2 * width + 1);
  Scratch<T> factors(p.s_heads * band_size);
  auto band = [&](int64_t r) { return math::Band<T>{factors + r * band_size, p.n, width}; };
  parallel_for(p.s_heads, larger(1, 32768 / (p.n * (width * width + 1))),
               [&](int64_t begin, int64_t end) {
                 for (int64_t r = begin; r < end; ++r) {
                   math::fill_band(band(r), static_cast<const T*>(p.s) + r * p.n * p.n,
                                   p.transpose ? T(-1) : T(1));
                   math::factor_band(band(r));
                 }
               });

  const auto x = Rows<const Storage>{static_cast<const Storage*>(p.x.data), p.x.stride_batch,
                                     p.x.stride_head, p.x.stride_token};
  const int64_t tile = V * L, tiles = (p.tokens + tile - 1) / tile;
  const int64_t grain = larger(1, 65536 / (tile * p.n * (width + 4)));
  parallel_for(p.batch * p.heads * tiles, grain, [&](int64_t begin, int64_t end) {
    Scratch<Vec<T>> work(2 * (p.n + L) * V);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t row = item / tiles, h = row % p.heads, first = item % tiles * tile;
      const auto factored = band(h * p.s_heads / p.heads);
      const int64_t last = smaller(first + tile, p.tokens);
      auto strip = [&](int64_t n, int64_t tokens) {
        return Strip<Storage>{x.at(row / p.heads, h, n),
                              static_cast<Storage*>(p.out) + (row * p.tokens + n) * p.n, tokens,
                              p.tokens - n - tokens};
      };
      if (last - first > (V - 1) * L) {
        solve_strip<Storage, V>(p, factored, strip(first, last - first), work);
        continue;
      }
      for (int64_t n = first; n < last; n += L)
        solve_strip<Storage, 1>(p, factored, strip(n, smaller(L, last - n)), work);
    }
  });
}

}  // namespace

void cayley_rotate(const CayleyRotateParams& p);
void cayley_rotate(const CayleyRotateParams& p) {
  if (p.n == 0) return;
  with_storage(p.dtype, [&](auto element) {
    if (forms_matrix(p.n, p.bandwidth))
      rotate_by_product<decltype(element)>(p);
    else
      rotate_by_solve<decltype(element)>(p);
  });
}

}  // namespace lierope::cpu::LIEROPE_ISA
