// One matrix shared by a square of threads: which entries each computes, and the products.
#pragma once
#include "portable.cuh"

#if defined(LIEROPE_EMULATED)
#define LIEROPE_UNROLL_BY(count)
#else
#define LIEROPE_PRAGMA(text) _Pragma(#text)
#define LIEROPE_UNROLL_BY(count) LIEROPE_PRAGMA(unroll count)
#endif

namespace lierope::cuda {

// 16 bytes, or 8 where two floats are all there is.
template <class T, int count>
struct alignas(sizeof(T) * count < 16 ? sizeof(T) * count : 16) Numbers {
  T v[count];
};
template <int count, class T>
__device__ __forceinline__ void load_numbers(T* to, const T* from) {
  const Numbers<T, count> x = *reinterpret_cast<const Numbers<T, count>*>(from);
  LIEROPE_UNROLL
  for (int i = 0; i < count; ++i) to[i] = x.v[i];
}
template <int count, class T>
__device__ __forceinline__ void store_numbers(T* to, const T* from) {
  Numbers<T, count> x;
  LIEROPE_UNROLL
  for (int i = 0; i < count; ++i) x.v[i] = from[i];
  *reinterpret_cast<Numbers<T, count>*>(to) = x;
}

// Half products are kept in registers; where they and the buffers are too large (double, sides
// above 64) all of it lies in global memory.
template <class T, int TS>
inline constexpr bool kInWorkspace = sizeof(T) == 8 && TS == 8;

// A matrix of side n is padded to m tiles of TS a side, by zeros, and has m^2 threads. Of a full
// product thread (I, J) computes one tile, its rows and columns in quads that lie m quads apart:
// neighbours then read neighbouring 16-byte words. Of a product that is symmetric or skew, only the
// lower triangle is computed: thread I^2 + J, J <= 2 I, has a tile of TS rows and TS / 2 columns,
// and the m TS / 2 first threads each a row of what is left, the last quarter of a diagonal tile.
template <class T, int TS>
struct Tiles {
  static constexpr int W = TS / 2;
  static constexpr int kHalf = TS * W + W;  // entries of a half product a thread has

  int n, m, side, stride;  // stride of the rows of buffers in elements
  int thread, threads;     // of this matrix
  int I, J;
  int row, column;  // the first of the half tile
  int extra_row, extra_column;
  bool diagonal, extra;

  __device__ __forceinline__ Tiles(int n_, int thread_)
      : n(n_),
        m((n_ + TS - 1) / TS),
        side(TS * m),
        stride(stride_of(side)),
        thread(thread_),
        threads(m * m),
        I(thread_ / m),
        J(thread_ % m) {
    const int octet = int(sqrtf(float(thread)));
    row = TS * octet;
    column = W * (thread - octet * octet);
    diagonal = row == column;
    extra = thread < m * W;
    extra_column = TS * (thread / W) + W;
    extra_row = extra_column + thread % W;
  }

  // 16 bytes more than a row, so that rows begin in different banks.
  static __host__ __device__ constexpr int stride_of(int side) {
    return side + int(16 / sizeof(T));
  }
  static __host__ __device__ constexpr int64_t buffer_size(int n) {
    const int side = (n + TS - 1) / TS * TS;
    return int64_t(side) * stride_of(side);
  }

  __device__ __forceinline__ int full_row(int r) const { return 4 * (I + m * (r / 4)) + r % 4; }
  __device__ __forceinline__ int full_quad(int q) const { return 4 * (J + m * q); }
  __device__ __forceinline__ int entry_row(int e) const {
    return e < TS * W ? row + e / W : extra_row;
  }
  __device__ __forceinline__ int entry_column(int e) const {
    return e < TS * W ? column + e % W : extra_column + e % W;
  }
  // Whether entry e is this thread's and in the lower triangle: each such entry has one owner.
  __device__ __forceinline__ bool owns(int e) const {
    return e < TS * W ? !(diagonal && e / W < e % W) : extra && extra_row >= extra_column + e % W;
  }
};

template <class T, int TS>
struct HalfTile {
  T v[Tiles<T, TS>::kHalf];
};

template <class T, int TS>
__device__ __forceinline__ HalfTile<T, TS> zero_half() {
  HalfTile<T, TS> out;
  LIEROPE_UNROLL
  for (T& e : out.v) e = 0;
  return out;
}

// Rows first .. first + R - 1 of the thread's tile of x y. Rows of x past `rows` may be anything,
// their products too.
template <int R, class T, int TS>
__device__ __forceinline__ void full_product(const Tiles<T, TS>& at, const T* x, const T* y,
                                             int rows, int first, T (&sum)[R][TS]) {
  constexpr int V = int(16 / sizeof(T));
  LIEROPE_UNROLL
  for (auto& line : sum) LIEROPE_UNROLL
  for (T& e : line) e = 0;
  const T* xs[R / 4];
  LIEROPE_UNROLL
  for (int h = 0; h < R / 4; ++h) {
    const int row = at.full_row(first + 4 * h);
    xs[h] = x + (row < rows ? row : 0) * at.stride;
  }
  LIEROPE_ROLLED
  for (int k = 0; k < at.side; k += V) {
    T a[R][V];
    LIEROPE_UNROLL
    for (int r = 0; r < R; ++r) load_numbers<V>(a[r], xs[r / 4] + r % 4 * at.stride + k);
    LIEROPE_UNROLL
    for (int i = 0; i < V; ++i) {
      T b[TS];
      LIEROPE_UNROLL
      for (int q = 0; q < TS / 4; ++q)
        load_numbers<4>(b + 4 * q, y + (k + i) * at.stride + at.full_quad(q));
      LIEROPE_UNROLL
      for (int r = 0; r < R; ++r) LIEROPE_UNROLL
      for (int c = 0; c < TS; ++c) sum[r][c] += a[r][i] * b[c];
    }
  }
}

template <class T, int TS>
__device__ __forceinline__ void write_row(const Tiles<T, TS>& at, T* out, int r,
                                          const T (&line)[TS]) {
  LIEROPE_UNROLL
  for (int q = 0; q < TS / 4; ++q)
    store_numbers<4>(out + at.full_row(r) * at.stride + at.full_quad(q), line + 4 * q);
}

// sum += sign x^T y over `count` rows of x and y.
template <int sign, class T, int TS>
__device__ __forceinline__ void add_half_product(const Tiles<T, TS>& at, HalfTile<T, TS>& sum,
                                                 const T* x, const T* y, int count) {
  constexpr int W = TS / 2;
  const T *a = x + at.row, *b = y + at.column;
  const T *extra_a = x + at.extra_row, *extra_b = y + at.extra_column;
  LIEROPE_UNROLL_BY((kInWorkspace<T, TS> ? 1 : 2))
  for (int k = 0; k < count; ++k) {
    const int offset = k * at.stride;
    T left[TS], right[W];
    LIEROPE_UNROLL
    for (int q = 0; q < TS / 4; ++q) load_numbers<4>(left + 4 * q, a + offset + 4 * q);
    load_numbers<W>(right, b + offset);
    LIEROPE_UNROLL
    for (int r = 0; r < TS; ++r) LIEROPE_UNROLL
    for (int c = 0; c < W; ++c) sum.v[r * W + c] += sign * left[r] * right[c];
    if (at.extra) {
      const T one = extra_a[offset];
      load_numbers<W>(right, extra_b + offset);
      LIEROPE_UNROLL
      for (int c = 0; c < W; ++c) sum.v[TS * W + c] += sign * one * right[c];
    }
  }
}

// The upper half of a diagonal tile from its lower, to the bit: mirror 1 for symmetric matrices, -1
// for skew ones.
template <int mirror, class T, int TS>
__device__ __forceinline__ void complete(const Tiles<T, TS>& at, HalfTile<T, TS>& half) {
  constexpr int W = TS / 2;
  if (at.diagonal) {
    LIEROPE_UNROLL
    for (int r = 0; r < W; ++r) {
      if (mirror < 0) half.v[r * W + r] = 0;
      LIEROPE_UNROLL
      for (int c = r + 1; c < W; ++c) half.v[r * W + c] = mirror * half.v[c * W + r];
    }
  }
  if (mirror < 0) {
    LIEROPE_UNROLL
    for (int c = 0; c < W; ++c)
      if (at.extra_row == at.extra_column + c) half.v[TS * W + c] = 0;
  }
}

// sign x^T y, which is symmetric (mirror 1) or skew (-1).
template <int sign, int mirror, class T, int TS>
__device__ __forceinline__ HalfTile<T, TS> half_product(const Tiles<T, TS>& at, const T* x,
                                                        const T* y) {
  HalfTile<T, TS> sum = zero_half<T, TS>();
  add_half_product<sign>(at, sum, x, y, at.side);
  complete<mirror>(at, sum);
  return sum;
}

// f(e) for every entry a thread may own: one after the other where there is no room in registers to
// hold several.
template <class T, int TS, class F>
__device__ __forceinline__ void each_entry(F f) {
  if constexpr (kInWorkspace<T, TS>) {
    LIEROPE_ROLLED
    for (int e = 0; e < Tiles<T, TS>::kHalf; ++e) f(e);
  } else {
    LIEROPE_UNROLL
    for (int e = 0; e < Tiles<T, TS>::kHalf; ++e) f(e);
  }
}

// Entry e of the lower triangle becomes lower(e), its mirror image upper(e).
template <class T, int TS, class Lower, class Upper>
__device__ __forceinline__ void write_half(const Tiles<T, TS>& at, T* out, Lower lower,
                                           Upper upper) {
  constexpr int W = TS / 2;
  const auto write_entry = [&](int e) {
    if (!at.owns(e)) return;
    const int i = at.entry_row(e), j = at.entry_column(e);
    out[j * at.stride + i] = upper(e);
    out[i * at.stride + j] = lower(e);
  };
  if constexpr (kInWorkspace<T, TS>) {
    each_entry<T, TS>(write_entry);
  } else {
    LIEROPE_UNROLL
    for (int r = 0; r < TS; ++r) {
      T line[W];
      LIEROPE_UNROLL
      for (int c = 0; c < W; ++c) line[c] = lower(r * W + c);
      store_numbers<W>(out + (at.row + r) * at.stride + at.column, line);
    }
    LIEROPE_UNROLL
    for (int c = 0; c < W; ++c) LIEROPE_UNROLL
    for (int q = 0; q < TS; q += 4) {
      T line[4];
      LIEROPE_UNROLL
      for (int r = 0; r < 4; ++r) line[r] = upper((q + r) * W + c);
      store_numbers<4>(out + (at.column + c) * at.stride + at.row + q, line);
    }
    LIEROPE_UNROLL
    for (int c = 0; c < W; ++c) write_entry(TS * W + c);
  }
}
template <class T, int TS, class F>
__device__ __forceinline__ void write_symmetric(const Tiles<T, TS>& at, T* out, F f) {
  write_half(at, out, f, f);
}
template <class T, int TS, class F>
__device__ __forceinline__ void write_skew(const Tiles<T, TS>& at, T* out, F f) {
  write_half(at, out, f, [&](int e) { return -f(e); });
}

}  // namespace lierope::cuda
