// Block rotations of 1, 2, 4, ... features, whole blocks side by side in a vector.
#pragma once
#include "blocks.h"

namespace lierope::cpu::LIEROPE_ISA {

// Lane (g, i) of the result is lane (g, j) of x, for blocks g of b features.
template <class T, int b, int j, int... I>
LIEROPE_HD Vec<T> spread(Vec<T> x, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(x, x, ((I & ~(b - 1)) | j)...);
}

template <class Storage, int b>
class BlocksInLanes final : public Blocks<Storage> {
 public:
  using T = Compute<Storage>;
  static constexpr int L = kLanes<T>, kRows = 4;
  static_assert(b <= L);

  explicit BlocksInLanes(int64_t blocks) : blocks_(blocks), features_(blocks * b) {}

  int64_t rows_at_once() const override { return kRows; }
  int64_t size() const override { return (features_ + L - 1) / L * L * b; }
  int64_t staging() const override { return 0; }

  // coefficients[v][j], lane (g, i): R_ij of block (v, g); with `transposed` R_ji.
  void prepare(const T* rotations, T* coefficients, bool transposed) const override {
    for (int64_t v = 0; v * L < features_; ++v) {
      Vec<T> rows[b];
      LIEROPE_UNROLL
      for (int i = 0; i < b; ++i) {
        alignas(64) T lanes[L] = {};
        LIEROPE_UNROLL
        for (int g = 0; g < L / b; ++g) {
          if (v * (L / b) + g < blocks_)
            std::memcpy(lanes + g * b, rotations + ((v * (L / b) + g) * b + i) * b, b * sizeof(T));
        }
        rows[i] = load<T>(lanes);
      }
      if (!transposed) transpose_blocks<b / 2>(rows);
      LIEROPE_UNROLL
      for (int i = 0; i < b; ++i) store<T>(coefficients + (v * b + i) * L, rows[i]);
    }
  }

  void rotate(const Run<Storage>& run, const T* coefficients, T*) const override {
    int64_t row = 0;
    for (; row + kRows <= run.count; row += kRows) rotate_rows<kRows>(run, row, coefficients);
    for (; row < run.count; ++row) rotate_rows<1>(run, row, coefficients);
  }

  // run: y_grad -> x_grad by transposed coefficients; sums[v][i] += y_grad_i x^T.
  void adjoint(const Run<Storage>& run, const Storage* x, int64_t x_stride, const T* coefficients,
               T* sums, T*) const override {
    int64_t row = 0;
    for (; row + kRows <= run.count; row += kRows)
      adjoint_rows<kRows>(run, row, x, x_stride, coefficients, sums);
    for (; row < run.count; ++row) adjoint_rows<1>(run, row, x, x_stride, coefficients, sums);
  }

  void write_sums(const T* sums, T* out) const override {
    for (int64_t block = 0; block < blocks_; ++block) {
      const int64_t v = block / (L / b), g = block % (L / b);
      for (int i = 0; i < b; ++i)
        std::memcpy(out + (block * b + i) * b, sums + (v * b + i) * L + g * b, b * sizeof(T));
    }
  }

 private:
  template <int j>
  static Vec<T> spread_lane(Vec<T> x) {
    return spread<T, b, j>(x, std::make_integer_sequence<int, L>());
  }
  template <class F, int... J>
  LIEROPE_HD static void for_columns(F&& f, std::integer_sequence<int, J...>) {
    (f(std::integral_constant<int, J>()), ...);
  }

  template <int H>
  static void transpose_blocks(Vec<T>* rows) {
    if constexpr (H > 0) {
      LIEROPE_UNROLL
      for (int i = 0; i < b; ++i) {
        if (!(i & H)) swap_halves<T, H>(rows[i], rows[i | H], std::make_integer_sequence<int, L>());
      }
      transpose_blocks<H / 2>(rows);
    }
  }

  template <int R>
  LIEROPE_HD void rotate_rows(const Run<Storage>& run, int64_t row, const T* coefficients) const {
    const Storage* in = run.in + row * run.in_stride;
    Storage* out = run.out + row * run.out_stride;
    for (int64_t i = 0; i < features_; i += L) {
      const int64_t count = smaller(L, features_ - i);
      const T* c = coefficients + i * b;
      Vec<T> x[R], y[R];
      LIEROPE_UNROLL
      for (int r = 0; r < R; ++r) x[r] = load_wide(in + r * run.in_stride + i, count);
      for_columns(
          [&](auto j) {
            const Vec<T> column = load<T>(c + j * L);
            LIEROPE_UNROLL
            for (int r = 0; r < R; ++r) {
              const Vec<T> term = column * spread_lane<j>(x[r]);
              y[r] = j == 0 ? term : y[r] + term;
            }
          },
          std::make_integer_sequence<int, b>());
      LIEROPE_UNROLL
      for (int r = 0; r < R; ++r) store_narrow(out + r * run.out_stride + i, y[r], count);
    }
  }

  template <int R>
  LIEROPE_HD void adjoint_rows(const Run<Storage>& run, int64_t row, const Storage* x,
                               int64_t x_stride, const T* coefficients, T* sums) const {
    const Storage* in = run.in + row * run.in_stride;
    Storage* out = run.out + row * run.out_stride;
    x += row * x_stride;
    for (int64_t i = 0; i < features_; i += L) {
      const int64_t count = smaller(L, features_ - i);
      const T* c = coefficients + i * b;
      T* sum = sums + i * b;
      Vec<T> g[R], before[R], y[R];
      LIEROPE_UNROLL
      for (int r = 0; r < R; ++r) {
        g[r] = load_wide(in + r * run.in_stride + i, count);
        before[r] = load_wide(x + r * x_stride + i, count);
      }
      for_columns(
          [&](auto j) {
            const Vec<T> column = load<T>(c + j * L);
            Vec<T> total = load<T>(sum + j * L);
            LIEROPE_UNROLL
            for (int r = 0; r < R; ++r) {
              const Vec<T> lane = spread_lane<j>(g[r]);
              y[r] = j == 0 ? column * lane : y[r] + column * lane;
              total = total + lane * before[r];
            }
            store<T>(sum + j * L, total);
          },
          std::make_integer_sequence<int, b>());
      LIEROPE_UNROLL
      for (int r = 0; r < R; ++r) store_narrow(out + r * run.out_stride + i, y[r], count);
    }
  }

  int64_t blocks_, features_;
};

}  // namespace lierope::cpu::LIEROPE_ISA
