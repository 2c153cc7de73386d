// Products of small matrices with the structure of the skew exponential known to the compiler:
// full, symmetric, skew.
#pragma once
#include "element.h"

namespace lierope::math {
inline namespace LIEROPE_ISA {

template <int N>
inline constexpr int kTriangle = N * (N - 1) / 2;
template <int N>
inline constexpr int kSymmetric = N * (N + 1) / 2;

// How a matrix is stored: where element (i, j) is, with what sign (0: it is zero), and whether it
// is one of those stored.
template <int N>
struct Full {
  static constexpr int size = N * N;
  static constexpr int at(int i, int j) { return i * N + j; }
  static constexpr int sign(int, int) { return 1; }
  static constexpr bool stored(int, int) { return true; }
};
template <int N>
struct TransposedFull : Full<N> {
  static constexpr int at(int i, int j) { return j * N + i; }
};
template <int N>
struct Symmetric {
  static constexpr int size = kSymmetric<N>;
  static constexpr int at(int i, int j) {
    return i >= j ? i * (i + 1) / 2 + j : j * (j + 1) / 2 + i;
  }
  static constexpr int sign(int, int) { return 1; }
  static constexpr bool stored(int i, int j) { return i >= j; }
};
template <int N>
struct Skew {  // the strict upper triangle by rows
  static constexpr int size = kTriangle<N>;
  static constexpr int at(int i, int j) {
    return i < j ? i * (2 * N - i - 1) / 2 + j - i - 1 : j * (2 * N - j - 1) / 2 + i - j - 1;
  }
  static constexpr int sign(int i, int j) { return i < j ? 1 : i > j ? -1 : 0; }
  static constexpr bool stored(int i, int j) { return i < j; }
};

// Rows and columns of a tile of accumulators: what the registers hold.
template <class S>
inline constexpr int kTileRows = sizeof(S) >= 64 ? 4 : 2;
inline constexpr int kTileColumns = 4;

template <class S>
struct Tile {
  S sum[kTileRows<S>][kTileColumns];
};

// sum += sign * A B on the tile at (i0, j0). Every element adds its terms in the order of k,
// wherever it is: so exp(-A) = exp(A)^T to the bit.
template <class A, class B, class C, int N, int sign, class S>
LIEROPE_HD void add_product(Tile<S>& tile, const S* a, const S* b, int i0, int j0) {
  LIEROPE_UNROLL
  for (int k = 0; k < N; ++k) {
    LIEROPE_UNROLL
    for (int i = i0; i < i0 + kTileRows<S>; ++i) {
      LIEROPE_UNROLL
      for (int j = j0; j < j0 + kTileColumns; ++j) {
        if (i >= N || j >= N || !C::stored(i, j)) continue;
        const int s = sign * A::sign(i, k) * B::sign(k, j);
        S& sum = tile.sum[i - i0][j - j0];
        if (s > 0) sum += a[A::at(i, k)] * b[B::at(k, j)];
        if (s < 0) sum -= a[A::at(i, k)] * b[B::at(k, j)];
      }
    }
  }
}

// For each stored element of C: write(i, j, start(i, j) + what `add` accumulates on its tile).
template <class C, int N, class S, class Start, class Add, class Write>
LIEROPE_HD void for_tiles(Start start, Add add, Write write) {
  constexpr int rows = kTileRows<S>, columns = kTileColumns;
  LIEROPE_UNROLL
  for (int i0 = 0; i0 < N; i0 += rows) {
    LIEROPE_UNROLL
    for (int j0 = 0; j0 < N; j0 += columns) {
      Tile<S> tile;
      LIEROPE_UNROLL
      for (int i = i0; i < i0 + rows; ++i) LIEROPE_UNROLL
      for (int j = j0; j < j0 + columns; ++j)
        if (i < N && j < N && C::stored(i, j)) tile.sum[i - i0][j - j0] = start(i, j);
      add(tile, i0, j0);
      LIEROPE_UNROLL
      for (int i = i0; i < i0 + rows; ++i) LIEROPE_UNROLL
      for (int j = j0; j < j0 + columns; ++j)
        if (i < N && j < N && C::stored(i, j)) write(i, j, tile.sum[i - i0][j - j0]);
      LIEROPE_RELOAD();
    }
  }
}

// C = start + A B.
template <class A, class B, class C, int N, class S, class Start>
LIEROPE_HD void multiply(const S* a, const S* b, S* c, Start start) {
  for_tiles<C, N, S>(
      start,
      [&](Tile<S>& t, int i0, int j0)
          LIEROPE_INLINED { add_product<A, B, C, N, 1>(t, a, b, i0, j0); },
      [&](int i, int j, const S& x) LIEROPE_INLINED { c[C::at(i, j)] = x; });
}

template <int N, class S>
LIEROPE_NOINLINE void square_skew(const S* a, S* b) {
  multiply<Skew<N>, Skew<N>, Symmetric<N>, N>(a, a, b,
                                              [](int, int) LIEROPE_INLINED { return S{}; });
}

template <int N, class S>
LIEROPE_NOINLINE void multiply_symmetric(const S* a, const S* b, S* c) {
  multiply<Symmetric<N>, Symmetric<N>, Symmetric<N>, N>(
      a, b, c, [](int, int) LIEROPE_INLINED { return S{}; });
}

template <int N, class S>
LIEROPE_NOINLINE void multiply_skew_symmetric(const S* a, const S* b, S* c) {
  multiply<Skew<N>, Symmetric<N>, Skew<N>, N>(a, b, c,
                                              [](int, int) LIEROPE_INLINED { return S{}; });
}

template <int N, class S>
LIEROPE_NOINLINE void square_full(const S* x, S* y) {
  multiply<Full<N>, Full<N>, Full<N>, N>(x, x, y, [](int, int) LIEROPE_INLINED { return S{}; });
}

// Where a rotation is to be multiplied further it is held as E = R - I: while E is small, so is
// what rounding does to it. Terms of first order are added last, to the sum of the others. The
// closed forms of sides up to 4 need no products.
template <int N>
inline constexpr bool kLessIdentity = N > 4;

template <int N, class S>
LIEROPE_HD void add_identity(const S* e, S* r) {
  LIEROPE_UNROLL
  for (int i = 0; i < N * N; ++i) r[i] = i % (N + 1) == 0 ? S(e[i] + Scalar<S>(1)) : e[i];
}

// (I + X) (I + Y) - I = X + Y + X Y.
template <int N, class S>
LIEROPE_NOINLINE void multiply_rotations(const S* x, const S* y, S* z) {
  using F = Full<N>;
  for_tiles<F, N, S>([](int, int) LIEROPE_INLINED { return S{}; },
                     [&](Tile<S>& t, int i0, int j0)
                         LIEROPE_INLINED { add_product<F, F, F, N, 1>(t, x, y, i0, j0); },
                     [&](int i, int j, const S& sum) LIEROPE_INLINED {
                       const int e = F::at(i, j);
                       z[e] = x[e] + y[e] + sum;
                     });
}

// (I + E)^2 - I = 2 E + E^2.
template <int N, class S>
LIEROPE_NOINLINE void square_rotation(const S* x, S* y) {
  using F = Full<N>;
  for_tiles<F, N, S>([](int, int) LIEROPE_INLINED { return S{}; },
                     [&](Tile<S>& t, int i0, int j0)
                         LIEROPE_INLINED { add_product<F, F, F, N, 1>(t, x, x, i0, j0); },
                     [&](int i, int j, const S& sum)
                         LIEROPE_INLINED { y[F::at(i, j)] = Scalar<S>(2) * x[F::at(i, j)] + sum; });
}

// 2 skew(M^T G) = M^T G - G^T M for M = E or, with identity, M = I + E.
template <int N, bool identity, class S>
LIEROPE_NOINLINE void twice_skew_of_product(const S* e, const S* g, S* w) {
  using P = Full<N>;
  using Q = TransposedFull<N>;
  for_tiles<Skew<N>, N, S>([](int, int) LIEROPE_INLINED { return S{}; },
                           [&](Tile<S>& t, int i0, int j0) LIEROPE_INLINED {
                             add_product<Q, P, Skew<N>, N, 1>(t, e, g, i0, j0);
                             add_product<Q, P, Skew<N>, N, -1>(t, g, e, i0, j0);
                           },
                           [&](int i, int j, const S& sum) LIEROPE_INLINED {
                             w[Skew<N>::at(i, j)] =
                                 identity ? S(g[P::at(i, j)] - g[P::at(j, i)] + sum) : sum;
                           });
}

// out = q w + [x, z].
template <int N, class S>
LIEROPE_NOINLINE void add_commutator(const S* x, const S* z, const S* w, Scalar<S> q, S* out) {
  using K = Skew<N>;
  for_tiles<K, N, S>([&](int i, int j) LIEROPE_INLINED { return S(q * w[K::at(i, j)]); },
                     [&](Tile<S>& t, int i0, int j0) LIEROPE_INLINED {
                       add_product<K, K, K, N, 1>(t, x, z, i0, j0);
                       add_product<K, K, K, N, -1>(t, z, x, i0, j0);
                     },
                     [&](int i, int j, const S& sum) LIEROPE_INLINED { out[K::at(i, j)] = sum; });
}

// R w R^T - w = Y - Y^T + Y E^T with Y = E w: change(element of the triangle, that).
// y: room for Y, the caller's: of an array of its own the compiler would keep copies on the stack.
template <int N, class S, class Change>
LIEROPE_HD void conjugate(const S* e, const S* w, S* y, Change change) {
  using F = Full<N>;
  using K = Skew<N>;
  multiply<F, K, F, N>(e, w, y, [](int, int) LIEROPE_INLINED { return S{}; });
  for_tiles<K, N, S>([](int, int) LIEROPE_INLINED { return S{}; },
                     [&](Tile<S>& t, int i0, int j0) LIEROPE_INLINED {
                       add_product<F, TransposedFull<N>, K, N, 1>(t, static_cast<const S*>(y), e,
                                                                  i0, j0);
                     },
                     [&](int i, int j, const S& sum) LIEROPE_INLINED {
                       const S first_order = y[F::at(i, j)] - y[F::at(j, i)];
                       change(K::at(i, j), S(first_order + sum));
                     });
}

// In the lanes that are active: w = (w + R w R^T) / 2.
template <int N, class S>
LIEROPE_NOINLINE void average_conjugate(const S* e, const MaskOf<S>& active, S* w, S* y) {
  conjugate<N>(e, static_cast<const S*>(w), y, [&](int t, const S& change) LIEROPE_INLINED {
    w[t] = active ? S(w[t] + Scalar<S>(0.5) * change) : w[t];
  });
}

// w = z + R w R^T.
template <int N, class S>
LIEROPE_NOINLINE void add_conjugate(const S* e, const S* z, S* w, S* y) {
  conjugate<N>(e, static_cast<const S*>(w), y,
               [&](int t, const S& change) LIEROPE_INLINED { w[t] = z[t] + (w[t] + change); });
}

}  // namespace LIEROPE_ISA
}  // namespace lierope::math
