// Sums in a fixed order: long ones, and those over the parts of a gradient.
#pragma once
#include "../parallel.h"
#include "scratch.h"

namespace lierope::cpu::LIEROPE_ISA {

// Of arrays, as a sum of sums: in float the rounding error of one would grow with its length.
template <class E>
class LongSum {
 public:
  explicit LongSum(int64_t size) : size_(size), recent_(size + 1), total_(size + 1) { clear(); }

  void clear() {
    fill(recent_);
    fill(total_);
    added_ = 0;
  }
  E* recent() const { return recent_; }  // what is to be added to, before each added()
  void added() {
    if (++added_ % kFlush == 0) flush();
  }
  const E* total() {
    flush();
    return total_;
  }

 private:
  static constexpr int64_t kFlush = 64;
  const int64_t size_;
  Scratch<E> recent_, total_;
  int64_t added_ = 0;

  void fill(E* x) const {
    for (int64_t i = 0; i < size_; ++i) x[i] = E{};
  }
  void flush() {
    for (int64_t i = 0; i < size_; ++i) total_[i] += recent_[i];
    fill(recent_);
  }
};

// out (count) = sum over parts of (parts, count).
template <class T>
void sum_parts(int64_t parts, int64_t count, const T* x, T* out) {
  parallel_for(count, 1 + 100000 / (parts + 1), [&](int64_t begin, int64_t end) {
    for (int64_t e = begin; e < end; ++e) {
      T sum = 0;
      for (int64_t part = 0; part < parts; ++part) sum += x[part * count + e];
      out[e] = sum;
    }
  });
}

}  // namespace lierope::cpu::LIEROPE_ISA
