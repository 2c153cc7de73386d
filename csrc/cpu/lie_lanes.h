// Generators and positions with one token a lane: contraction, and their gradients summed in a
// fixed order.
#pragma once
#include "../math/skew_products.h"
#include "../parallel.h"
#include "../params/lie.h"
#include "lanes.h"
#include "scratch.h"

namespace lierope::cpu::LIEROPE_ISA {

// The work is cut into tasks, each a range of the token groups of one sample and head. How it is
// cut follows from the sizes alone, so that sums over tasks do not depend on the number of threads.
struct LieTasks {
  int64_t heads, groups, chunks, count;

  LieTasks(const Lie& lie, int lanes) : heads(lie.heads), groups((lie.points + lanes - 1) / lanes) {
    constexpr int64_t kEnough = 64;  // tasks to keep many threads busy
    const int64_t rows = lie.samples * lie.heads;
    chunks = rows > 0 ? (kEnough + rows - 1) / rows : 0;
    if (chunks > groups) chunks = groups;
    count = rows * chunks;
  }
  struct Task {
    int64_t sample, head, chunk, first_group, last_group;
  };
  Task operator[](int64_t index) const {
    const int64_t chunk = index % chunks, row = index / chunks;
    return {row / heads, row % heads, chunk, chunk * groups / chunks,
            (chunk + 1) * groups / chunks};
  }
};

template <class T, int N>
class LieLanes {
 public:
  static constexpr int L = kLanes<T>, size = math::kTriangle<N>;

  explicit LieLanes(const Lie& lie)
      : lie_(lie),
        positions_(lie.dims + 1),
        generator_sums_(size_t(lie.dims * lie.blocks * size + L)),
        position_sums_(lie.dims + 1) {}

  // Tokens of group `group` in the lanes; lanes past the last token sit at the origin.
  void set_group(int64_t sample, int64_t head, int64_t group) {
    const int64_t first = group * L, left = lie_.points - first;
    sample_ = sample;
    head_ = head;
    first_ = first;
    count_ = int(left < L ? left : L);
    const T* p = static_cast<const T*>(lie_.positions) + (sample * lie_.points + first) * lie_.dims;
    for (int64_t c = 0; c < lie_.dims; ++c) {
      T lanes[L] = {};
      for (int lane = 0; lane < count_; ++lane) lanes[lane] = p[lane * lie_.dims + c];
      positions_[c] = load(lanes);
    }
  }
  int64_t first() const { return first_; }
  int count() const { return count_; }

  // a = sum_c p_c A_c for one block.
  void contract(int64_t block, Vec<T>* a) const {
    LIEROPE_UNROLL
    for (int t = 0; t < size; ++t) a[t] = Vec<T>{};
    for (int64_t c = 0; c < lie_.dims; ++c) {
      const T* u = generator(c, block);
      const Vec<T> p = positions_[c];
      LIEROPE_UNROLL
      for (int t = 0; t < size; ++t) a[t] += p * u[t];
    }
  }

  // Adds what g = dL/da of one block gives to the gradients of the generators and of the positions.
  void add_gradient(int64_t block, const Vec<T>* g) {
    for (int64_t c = 0; c < lie_.dims; ++c) {
      const T* u = generator(c, block);
      const Vec<T> p = positions_[c];
      Vec<T>* sums = generator_sums_ + (c * lie_.blocks + block) * size;
      Vec<T> position_sum = position_sums_[c];
      LIEROPE_UNROLL
      for (int t = 0; t < size; ++t) {
        sums[t] += p * g[t];
        position_sum += u[t] * g[t];
      }
      position_sums_[c] = position_sum;
    }
  }

  void clear_generator_sums() {
    const int64_t count = lie_.dims * lie_.blocks * size + L;
    for (int64_t i = 0; i < count; ++i) generator_sums_[i] = Vec<T>{};
  }
  void clear_position_sums() {
    for (int64_t c = 0; c < lie_.dims; ++c) position_sums_[c] = Vec<T>{};
  }

  // The sums over the lanes, (dims, blocks, size). They are used up.
  void reduce_generators(T* out) {
    const int64_t count = lie_.dims * lie_.blocks * size;
    for (int64_t i = 0; i < count; i += L) {
      Vec<T>* rows = generator_sums_ + i;
      transpose<T>(rows);
      Vec<T> sum = rows[0];
      for (int lane = 1; lane < L; ++lane) sum += rows[lane];
      T sums[L];
      store(sums, sum);
      for (int64_t t = i; t < i + L && t < count; ++t) out[t] = sums[t - i];
    }
  }
  // out: (points, dims) of this sample and head.
  void store_position_sums(T* out) const {
    for (int64_t c = 0; c < lie_.dims; ++c) {
      T lanes[L];
      store<T>(lanes, position_sums_[c]);
      for (int lane = 0; lane < count_; ++lane) out[(first_ + lane) * lie_.dims + c] = lanes[lane];
    }
  }

 private:
  const T* generator(int64_t c, int64_t block) const {
    return static_cast<const T*>(lie_.generators) +
           ((c * lie_.heads + head_) * lie_.blocks + block) * size;
  }

  const Lie& lie_;
  int64_t sample_ = 0, head_ = 0, first_ = 0;
  int count_ = 0;
  Scratch<Vec<T>> positions_, generator_sums_, position_sums_;
};

// Gradients of every task, and their sums in the order of the tasks.
template <class T>
class LieTaskGradients {
 public:
  LieTaskGradients(const Lie& lie, const LieTasks& tasks, void* generators_out, void* positions_out)
      : lie_(lie),
        tasks_(tasks),
        each_(lie.dims * lie.blocks * (lie.block_size * (lie.block_size - 1) / 2)),
        generators_out_(static_cast<T*>(generators_out)),
        positions_out_(static_cast<T*>(positions_out)),
        generators_(tasks.count * each_),
        positions_(positions_out ? lie.samples * lie.heads * lie.points * lie.dims : 0) {}

  T* generators(int64_t task) const { return generators_ + task * each_; }
  // Null when no gradient of the positions is wanted.
  T* positions(int64_t sample, int64_t head) const {
    if (!positions_out_) return nullptr;
    return positions_ + (sample * lie_.heads + head) * lie_.points * lie_.dims;
  }

  void sum() const {
    parallel_for(lie_.heads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t head = begin; head < end; ++head) sum_generators(head);
    });
    if (!positions_out_) return;
    parallel_for(lie_.samples * lie_.points, 1024, [&](int64_t begin, int64_t end) {
      for (int64_t point = begin; point < end; ++point) sum_positions(point);
    });
  }

 private:
  void sum_generators(int64_t head) const {
    const int64_t per_dim = each_ / (lie_.dims > 0 ? lie_.dims : 1);
    for (int64_t c = 0; c < lie_.dims; ++c) {
      T* out = generators_out_ + (c * lie_.heads + head) * per_dim;
      for (int64_t t = 0; t < per_dim; ++t) out[t] = 0;
      for (int64_t sample = 0; sample < lie_.samples; ++sample)
        for (int64_t chunk = 0; chunk < tasks_.chunks; ++chunk) {
          const T* in =
              generators((sample * lie_.heads + head) * tasks_.chunks + chunk) + c * per_dim;
          for (int64_t t = 0; t < per_dim; ++t) out[t] += in[t];
        }
    }
  }
  void sum_positions(int64_t index) const {
    const int64_t sample = index / lie_.points, point = index % lie_.points;
    for (int64_t c = 0; c < lie_.dims; ++c) {
      T sum = 0;
      for (int64_t head = 0; head < lie_.heads; ++head)
        sum += positions(sample, head)[point * lie_.dims + c];
      positions_out_[index * lie_.dims + c] = sum;
    }
  }

  const Lie& lie_;
  const LieTasks& tasks_;
  int64_t each_;
  T *generators_out_, *positions_out_;
  Scratch<T> generators_, positions_;
};

}  // namespace lierope::cpu::LIEROPE_ISA
