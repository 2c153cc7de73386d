// Rotations along a ray of positions with one matrix a lane: powers, and the pull-back of all.
#pragma once
#include "../rays.h"
#include "lane_exponential.h"
#include "lane_pairs.h"
#include "scratch.h"

namespace lierope::cpu::LIEROPE_ISA {

// R, R^2, R^3 .. from R, all as held (math::kLessIdentity), of some vectors of pairs.
template <class T, int N>
class LanePowers {
  static constexpr int M = kVectors<T, N>;

 public:
  LanePowers() : root_(M * N * N), even_(M * N * N), odd_(M * N * N) {}

  Vec<T>* root(int vector) const { return root_ + vector * N * N; }  // written before start()
  void start(int vectors) {
    vectors_ = vectors;
    current_ = root_;
    multiple_ = 1;
  }
  const Vec<T>* at(int64_t multiple) {
    if constexpr (math::kLessIdentity<N>)
      for (; multiple_ < multiple; ++multiple_) {
        Vec<T>* next = current_ == even_ ? odd_ : even_;
        for (int m = 0; m < vectors_ * N * N; m += N * N)
          lane_multiply<T, N>(current_ + m, root_ + m, next + m);
        current_ = next;
      }
    return current_;
  }

 private:
  Scratch<Vec<T>> root_, even_, odd_;
  const Vec<T>* current_ = nullptr;
  int vectors_ = 0;
  int64_t multiple_ = 1;
};

// Of some vectors of pairs the sum over m of e^(m ad_A) sum_(k > m) W_k, m = 0, 1, ..: see RaySums.
template <class T, int N>
class LaneRaySums {
 public:
  static constexpr int M = kVectors<T, N>, size = math::kTriangle<N>;

  explicit LaneRaySums(int64_t longest) : kept_(longest * M * size + 1) {}

  void clear() {
    for (bool& k : has_) k = false;
    length_ = 0;
  }
  // Where W of a multiple is to be added; multiples come upwards.
  Vec<T>* of(int64_t multiple) {
    if (!has_[multiple])
      for (int t = 0; t < M * size; ++t) slot(multiple, 0)[t] = Vec<T>{};
    has_[multiple] = true;
    length_ = multiple;
    return slot(multiple, 0);
  }
  // The whole sum of a vector, with R as held.
  Vec<T>* collect(int vector, const Vec<T>* r) {
    Vec<T>* sum = slot(length_, vector);
    if constexpr (math::kLessIdentity<N>) {
      if (length_ == 1) return sum;
      Vec<T> w[size];
      for (int t = 0; t < size; ++t) w[t] = sum[t];
      for (int64_t m = length_ - 1; m > 0; --m) {
        if (has_[m]) {
          Vec<T>* next = slot(m, vector);
          for (int t = 0; t < size; ++t) next[t] += sum[t];
          sum = next;
        }
        lane_add_conjugate<T, N>(r, sum, w);
      }
      for (int t = 0; t < size; ++t) sum[t] = w[t];
    }
    return sum;
  }

 private:
  Scratch<Vec<T>> kept_;
  bool has_[Rays::kLongest + 1] = {};
  int64_t length_ = 0;

  Vec<T>* slot(int64_t multiple, int vector) const {
    return kept_ + ((multiple - 1) * M + vector) * size;
  }
};

}  // namespace lierope::cpu::LIEROPE_ISA
