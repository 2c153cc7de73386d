// (I + S)^-1 of one skew matrix, in place, by Gauss-Jordan elimination of blocks of pivots.
#pragma once
#include "../math/element.h"
#include "ahead.h"
#include "rows.h"
#include "small_product.h"

namespace lierope::cpu::LIEROPE_ISA {

// Without pivoting, see math/cayley.h. Floats are eliminated as doubles: without pivoting errors
// grow with |S|, and a float of small S keeps every digit. What is stored is less by I, before and
// after a step: all entries are then sums of products, never rounded beside 1, and P = I + 2 (X -
// I) is as exact on the diagonal as off it. n^3 multiply-adds: every step is a product as wide as
// the matrix.
class GaussJordan {
 public:
  using T = double;
  static constexpr int64_t kPivots = 8;  // eliminated together

  explicit GaussJordan(int64_t n)
      : n_(n), padded_((n + kPivots - 1) / kPivots * kPivots), stride_(padded_ + kPad) {}
  int64_t size() const { return padded_ * stride_ + (padded_ + kPivots) * kPivots; }

  // S, or -S, entries with |i - j| > bandwidth and those past n counting as zero.
  template <class Storage>
  void fill(const Storage* s, int64_t bandwidth, T* work, bool minus = false) const {
    for (int64_t i = 0; i < padded_; i += L) {
      for (int64_t j = i; j < padded_; j += L) {
        Vec<T> upper[L], lower[L];
        LIEROPE_UNROLL
        for (int r = 0; r < L; ++r) {
          const Vec<T> row = entries(s, i + r, j, bandwidth);
          lower[r] = upper[r] = minus ? -row : row;
        }
        transpose<T>(lower);
        LIEROPE_UNROLL
        for (int r = 0; r < L; ++r) {
          if (i == j) {
            upper[r] -= lower[r];
          } else {
            store<T>(work + (j + r) * stride_ + i, -lower[r]);
          }
          store<T>(work + (i + r) * stride_ + j, upper[r]);
        }
      }
    }
  }

  int64_t steps() const { return padded_ / kPivots; }
  // Leaves (I + S)^-1 - I. `ahead` is asked for in the steps.
  void run(T* work, Ahead& ahead) const {
    for (int64_t k = 0; k < n_; k += kPivots) {
      ahead.some_lines();
      T* rows = work + k * stride_;
      T* inverse = work + padded_ * stride_;
      T* factors = inverse + kPivots * kPivots;
      T diagonal[kPivots];
      // The block's columns make room for those of the inverse, whose part in these rows is I.
      invert_block(rows + k, inverse, diagonal);
      take_columns(work, k, factors);
      int64_t j = 0;
      for (; j + kWide <= padded_; j += kWide) solve_rows<kWide / L>(inverse, rows + j);
      for (; j < padded_; j += L) solve_rows<1>(inverse, rows + j);
      eliminate(work, k, factors, 0, k);
      eliminate(work, k, factors, k + kPivots, n_);
      for (int64_t i = 0; i < kPivots; ++i) rows[i * stride_ + k + i] = diagonal[i];
    }
  }

  // P = 2 (I + S)^-1 - I to rows of `row` numbers, of which those past n become 0.
  template <class Storage>
  void write(const T* work, Storage* p, int64_t row) const {
    for (int64_t i = 0; i < n_; ++i) {
      for (int64_t j = 0; j < row; j += L) {
        Vec<T> twice{};
        if (j < padded_) twice = T(2) * load<T>(work + i * stride_ + j);
        const Vec<T> ones = from(j - i) == T(0) ? T(1) + Vec<T>{} : Vec<T>{};
        const auto v = __builtin_convertvector(twice + ones, math::Vector<Storage, L>);
        const int64_t count = smaller(L, row - j);
        if (count == L)
          std::memcpy(p + i * row + j, &v, sizeof v);
        else
          std::memcpy(p + i * row + j, &v, size_t(count) * sizeof(Storage));
      }
    }
  }

 private:
  static constexpr int L = kLanes<T>, kParts = kPivots / L;
  static constexpr int kWide = LIEROPE_VECTOR_BYTES == 64 ? 2 * L : L;  // 8 rows of it in registers
  static constexpr int64_t kPad = 8;  // keeps columns out of the same few sets of the cache

  // s_ij and the L - 1 entries after it, those above the diagonal and within the band. A vector may
  // end in the next row, but not after the matrix.
  template <class Storage>
  LIEROPE_HD Vec<T> entries(const Storage* s, int64_t i, int64_t j, int64_t bandwidth) const {
    if (i + 1 >= n_ || j >= n_) return Vec<T>{};
    math::Vector<Storage, L> stored{};
    const int64_t at = i * n_ + j, count = smaller(L, n_ * n_ - at);
    if (count == L)
      std::memcpy(&stored, s + at, sizeof stored);
    else
      std::memcpy(&stored, s + at, size_t(count) * sizeof(Storage));
    const Vec<T> row = __builtin_convertvector(stored, Vec<T>);
    const int64_t last = smaller(bandwidth, n_ - 1 - i);
    if (j > i && j + L - 1 - i <= last) return row;
    const Vec<T> offset = from(j - i);
    return (offset > T(0)) & (offset <= T(last)) ? row : Vec<T>{};
  }
  // first, first + 1, ...
  template <int... I>
  LIEROPE_HD static Vec<T> from(int64_t first, std::integer_sequence<int, I...>) {
    return Vec<T>{T(I)...} + T(first);
  }
  LIEROPE_HD static Vec<T> from(int64_t first) {
    return from(first, std::make_integer_sequence<int, L>());
  }

  using Block = Vec<T>[kPivots][kParts];

  template <int p, int... I>
  LIEROPE_HD static Vec<T> spread(const Vec<T>& x, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(x, x, (I - I + p)...);
  }
  template <int p, int... I>
  LIEROPE_HD static void replace(Vec<T>& x, const Vec<T>& by, std::integer_sequence<int, I...>) {
    x = __builtin_shufflevector(x, by, (I == p ? L + I : I)...);
  }
  // One step within a block. What it leaves on the diagonal is less by less[p], 1 or 0, whichever
  // makes it smaller: the block's inverse is a factor of all that follows, and beside 1 would lose
  // the digits of what a large S makes small. An infinite pivot would leave 0, not NaN.
  template <int p>
  LIEROPE_HD static void pivot(Block& row, T* less) {
    constexpr int lane = p % L, part = p / L;
    constexpr auto lanes = std::make_integer_sequence<int, L>();
    const Vec<T> less_one = spread<lane>(row[p][part], lanes), reciprocal = 1 / (1 + less_one);
    replace<lane>(row[p][part], T(0) * less_one + T(1), lanes);
    LIEROPE_UNROLL
    for (int v = 0; v < kParts; ++v) row[p][v] *= reciprocal;
    LIEROPE_UNROLL
    for (int i = 0; i < kPivots; ++i) {
      if (i == p) continue;
      const Vec<T> f = spread<lane>(row[i][part], lanes);
      replace<lane>(row[i][part], Vec<T>{}, lanes);
      LIEROPE_UNROLL
      for (int v = 0; v < kParts; ++v) row[i][v] -= f * row[p][v];
    }
    const auto small = less_one < T(1);
    replace<lane>(row[p][part], small ? -less_one * reciprocal : row[p][part], lanes);
    less[p] = (small ? Vec<T>{} + T(1) : Vec<T>{})[lane];
  }
  template <int... P>
  LIEROPE_HD static void pivots(Block& row, T* less, std::integer_sequence<int, P...>) {
    (pivot<P>(row, less), ...);
  }
  // diagonal: that of the inverse, less 1.
  void invert_block(T* block, T* inverse, T* diagonal) const {
    Block row;
    LIEROPE_UNROLL
    for (int i = 0; i < kPivots; ++i) {
      LIEROPE_UNROLL
      for (int v = 0; v < kParts; ++v) {
        row[i][v] = load<T>(block + i * stride_ + v * L);
        Vec<T> unit{};
        if (i / L == v) unit[i % L] = T(1);
        store<T>(block + i * stride_ + v * L, unit);
      }
    }
    T less[kPivots];
    pivots(row, less, std::make_integer_sequence<int, kPivots>());
    LIEROPE_UNROLL
    for (int i = 0; i < kPivots; ++i) {
      const T x = row[i][i / L][i % L];
      diagonal[i] = x - (T(1) - less[i]);
      row[i][i / L][i % L] = x + less[i];
      LIEROPE_UNROLL
      for (int v = 0; v < kParts; ++v) store<T>(inverse + i * kPivots + v * L, row[i][v]);
    }
  }

  void take_columns(T* work, int64_t k, T* factors) const {
    for (int64_t i = 0; i < n_; ++i) {
      if (i == k) i += kPivots;
      if (i >= n_) break;
      for (int v = 0; v < kParts; ++v) {
        T* part = work + i * stride_ + k + v * L;
        store<T>(factors + i * kPivots + v * L, -load<T>(part));
        store<T>(part, Vec<T>{});
      }
    }
  }
  // In place: a tile has all rows.
  template <int V>
  void solve_rows(const T* inverse, T* rows) const {
    product_tile<T, false, int(kPivots), V>(
        {inverse, kPivots, 1, rows, stride_, rows, stride_, kPivots}, 0, 0);
  }
  // Rows [begin, end) lose their part in the block's columns.
  void eliminate(T* work, int64_t k, const T* factors, int64_t begin, int64_t end) const {
    if (begin >= end) return;
    small_product<T, true>({factors + begin * kPivots, kPivots, 1, work + k * stride_, stride_,
                            work + begin * stride_, stride_, smaller(kPivots, n_ - k)},
                           end - begin, padded_);
  }

  int64_t n_, padded_, stride_;
};

}  // namespace lierope::cpu::LIEROPE_ISA
