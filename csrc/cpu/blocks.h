// What rotates the blocks of a row, whatever their size.
#pragma once
#include "convert.h"
#include "rows.h"

namespace lierope::cpu::LIEROPE_ISA {

// Rows of q or k that share one rotation.
template <class Storage>
struct Run {
  const Storage* in;
  Storage* out;
  int64_t in_stride, out_stride, count;
};

// The rotation of one token and head: G blocks of b features. `coefficients` and `sums` have size()
// elements, laid out as the class likes.
template <class Storage>
class Blocks {
 public:
  using T = Compute<Storage>;
  virtual int64_t rows_at_once() const = 0;  // a run that makes good use of loaded coefficients
  virtual int64_t size() const = 0;
  virtual int64_t staging() const = 0;  // working memory of rotate and adjoint
  // rotations: (G, b, b); with `transposed` their transposes.
  virtual void prepare(const T* rotations, T* coefficients, bool transposed) const = 0;
  virtual void rotate(const Run<Storage>& run, const T* coefficients, T* staged) const = 0;
  // run: y_grad -> x_grad, by transposed coefficients; adds y_grad x^T to the sums.
  virtual void adjoint(const Run<Storage>& run, const Storage* x, int64_t x_stride,
                       const T* coefficients, T* sums, T* staged) const = 0;
  virtual void write_sums(const T* sums, T* out) const = 0;  // out: (G, b, b)

 protected:
  ~Blocks() = default;
};

}  // namespace lierope::cpu::LIEROPE_ISA
