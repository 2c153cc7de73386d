// Block rotations of any size: rows that share a rotation are gathered and multiplied as a matrix.
#pragma once
#include "blocks.h"
#include "small_product.h"

namespace lierope::cpu::LIEROPE_ISA {

template <class Storage>
class BlocksByProduct final : public Blocks<Storage> {
 public:
  using T = Compute<Storage>;
  static constexpr int L = kLanes<T>;
  static constexpr int64_t kRows = 48;  // a multiple of kProductRows; staged rows stay in cache

  BlocksByProduct(int64_t blocks, int64_t block_size)
      : blocks_(blocks), b_(block_size), width_((block_size + L - 1) / L * L) {}

  int64_t rows_at_once() const override { return kRows; }
  int64_t size() const override { return blocks_ * b_ * width_; }
  int64_t staging() const override { return 3 * kRows * width_; }

  // coefficients[g][j][i]: R_ij of block g, zero for i >= b; with `transposed` R_ji.
  void prepare(const T* rotations, T* coefficients, bool transposed) const override {
    for (int64_t g = 0; g < blocks_; ++g, rotations += b_ * b_, coefficients += b_ * width_) {
      if (transposed) {
        for (int64_t i = 0; i < b_; ++i)
          for (int64_t j = 0; j < width_; j += L)
            store<T>(coefficients + i * width_ + j, part(rotations + i * b_, j));
      } else {
        transpose_one(rotations, coefficients);
      }
    }
  }

  void rotate(const Run<Storage>& run, const T* coefficients, T* staged) const override {
    T* in = staged;
    T* out = staged + kRows * width_;
    for (int64_t row = 0; row < run.count; row += kRows) {
      const int64_t rows = smaller(kRows, run.count - row);
      for (int64_t g = 0; g < blocks_; ++g) {
        gather(run.in + row * run.in_stride + g * b_, run.in_stride, rows, in);
        small_product<T, false>(
            {in, width_, 1, coefficients + g * b_ * width_, width_, out, width_, b_}, rows, width_);
        scatter(out, run.out + row * run.out_stride + g * b_, run.out_stride, rows);
      }
    }
  }

  // run: y_grad -> x_grad by transposed coefficients; sums[g][i] += y_grad_i x^T.
  void adjoint(const Run<Storage>& run, const Storage* x, int64_t x_stride, const T* coefficients,
               T* sums, T* staged) const override {
    T* in = staged;
    T* out = staged + kRows * width_;
    T* before = out + kRows * width_;
    for (int64_t row = 0; row < run.count; row += kRows) {
      const int64_t rows = smaller(kRows, run.count - row);
      for (int64_t g = 0; g < blocks_; ++g) {
        gather(run.in + row * run.in_stride + g * b_, run.in_stride, rows, in);
        gather(x + row * x_stride + g * b_, x_stride, rows, before);
        const int64_t offset = g * b_ * width_;
        small_product<T, false>({in, width_, 1, coefficients + offset, width_, out, width_, b_},
                                rows, width_);
        small_product<T, true>({in, 1, width_, before, width_, sums + offset, width_, rows}, b_,
                               width_);
        scatter(out, run.out + row * run.out_stride + g * b_, run.out_stride, rows);
      }
    }
  }

  void write_sums(const T* sums, T* out) const override {
    for (int64_t i = 0; i < blocks_ * b_; ++i)
      std::memcpy(out + i * b_, sums + i * width_, size_t(b_) * sizeof(T));
  }

 private:
  // Features [j, j + L) of a row of b, zero past its end.
  template <class S>
  Vec<T> part(const S* row, int64_t j) const {
    return load_wide(row + j, smaller(L, b_ - j));
  }
  void transpose_one(const T* rotation, T* out) const {
    for (int64_t i = 0; i < b_; i += L) {
      for (int64_t j = 0; j < b_; j += L) {
        Vec<T> square[L];
        for (int64_t r = 0; r < L; ++r)
          square[r] = i + r < b_ ? part(rotation + (i + r) * b_, j) : Vec<T>{};
        transpose<T>(square);
        for (int64_t r = 0; r < smaller(L, b_ - j); ++r)
          store<T>(out + (j + r) * width_ + i, square[r]);
      }
    }
  }
  void gather(const Storage* rows, int64_t stride, int64_t count, T* out) const {
    for (int64_t r = 0; r < count; ++r)
      for (int64_t j = 0; j < b_; j += L)
        store<T>(out + r * width_ + j, part(rows + r * stride, j));
  }
  void scatter(const T* in, Storage* rows, int64_t stride, int64_t count) const {
    for (int64_t r = 0; r < count; ++r)
      for (int64_t j = 0; j < b_; j += L)
        store_narrow(rows + r * stride + j, load<T>(in + r * width_ + j), smaller(L, b_ - j));
  }

  int64_t blocks_, b_, width_;
};

}  // namespace lierope::cpu::LIEROPE_ISA
