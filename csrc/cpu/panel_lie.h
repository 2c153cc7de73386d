// Loops over the rotations of generators and positions for panel blocks, and their gradients.
#pragma once
#include "../parallel.h"
#include "../params/lie.h"
#include "panel_expm.h"
#include "scratch.h"

namespace lierope::cpu::LIEROPE_ISA {

struct RotationIndex {
  int64_t sample, head, block, point;
};

// The generators of one (head, block), unpacked to the lower part of padded matrices.
template <class T>
class LieBlock {
 public:
  using Y = RowLayout<T>;

  LieBlock(const Lie& lie, const Shape<Y>& shape)
      : lie_(lie),
        shape_(shape),
        size_(int64_t(shape.columns) * shape.stride),
        unpacked_(lie.dims * size_),
        norms_(lie.dims),
        unit_(lie.dims) {
    std::memset(unpacked_, 0,
                size_t(lie.dims * size_) * sizeof(T));  // diagonal and padding stay zero
  }

  void select(int64_t head, int64_t block) {
    if (head == head_ && block == block_) return;
    head_ = head;
    block_ = block;
    has_norms_ = false;
    const int64_t n = shape_.n, packed = n * (n - 1) / 2;
    for (int64_t c = 0; c < lie_.dims; ++c) {
      const T* u = static_cast<const T*>(lie_.generators) +
                   ((c * lie_.heads + head) * lie_.blocks + block) * packed;
      T* g = unpacked_ + c * size_;
      for (int64_t i = 0; i < n; ++i)
        for (int64_t j = i + 1; j < n; ++j) g[j * shape_.stride + i] = -*u++;
    }
  }

  const T* position(int64_t sample, int64_t point) const {
    return static_cast<const T*>(lie_.positions) + (sample * lie_.points + point) * lie_.dims;
  }
  const T* generator(int64_t c) const { return unpacked_ + c * size_; }
  int64_t size() const { return size_; }

  // |sum_c p_c A_c|_2 is at most this. Uses panel's buffers.
  template <class AnyPanel>
  T norm_bound(const T* p, AnyPanel& panel) {
    if (!has_norms_) {
      for (int64_t c = 0; c < lie_.dims; ++c) {
        for (int64_t d = 0; d < lie_.dims; ++d) unit_[d] = T(d == c);
        contract(unit_, panel.spare);
        norms_[c] = panel.norm_bound(panel.spare);
      }
      has_norms_ = true;
    }
    T bound = 0;
    for (int64_t c = 0; c < lie_.dims; ++c) bound += (p[c] < 0 ? -p[c] : p[c]) * norms_[c];
    return bound;
  }

  // a = sign sum_c p_c A_c. The lower part is computed and mirrored: skew to the bit.
  template <int sign = 1>
  void contract(const T* p, T* a) const {
    fill<Y>(shape_, a, shape_.stride, 0, [&](int i, int j) {
      const T* g = unpacked_ + int64_t(i) * shape_.stride + j;
      Vec<T> v = p[0] * load(g);
      for (int64_t c = 1; c < lie_.dims; ++c) v += p[c] * load(g + c * size_);
      return sign > 0 ? Both<Vec<T>>{v, -v} : Both<Vec<T>>{-v, v};
    });
  }

 private:
  const Lie& lie_;
  const Shape<Y>& shape_;
  const int64_t size_;
  Scratch<T> unpacked_, norms_, unit_;
  bool has_norms_ = false;
  int64_t head_ = -1, block_ = -1;
};

// Calls worker(index) with panel.a set for every rotation. Worker is made once a range, from
// (params, panel). (head, block) is the outermost index: its generators stay unpacked.
template <class T, class Worker, class Params>
void each_rotation(const Params& params, const Lie& lie) {
  const int n = int(lie.block_size);
  const int64_t per_block = lie.samples * lie.points;
  parallel_for(lie.heads * lie.blocks * per_block, panel_grain(n), [&](int64_t begin, int64_t end) {
    Panel<RowLayout<T>> panel(n);
    LieBlock<T> generators(lie, panel.shape);
    Worker worker(params, panel);
    for (int64_t r = begin; r < end; ++r) {
      const int64_t pair = r / per_block, item = r % per_block;
      const RotationIndex index{item / lie.points, pair / lie.blocks, pair % lie.blocks,
                                item % lie.points};
      generators.select(index.head, index.block);
      const T* p = generators.position(index.sample, index.point);
      generators.contract(p, panel.a);
      if (worker.acts([&] { return generators.norm_bound(p, panel); }))
        worker.act(index);
      else
        worker(index);
    }
  });
}

// Sums over the rotations of one (head, block): of p_c z for the generators, <A_c, z> for
// positions.
template <class T>
class LieGradients {
 public:
  using Y = RowLayout<T>;

  LieGradients(const Lie& lie, const Shape<Y>& shape, int64_t size)
      : lie_(lie), shape_(shape), size_(size), recent_(lie.dims * size), total_(lie.dims * size) {
    clear(recent_);
    clear(total_);
  }

  // positions: dims numbers to be written, or null. z: Abar in its lower part.
  void add(const LieBlock<T>& generators, const T* p, const T* z, T* positions) {
    for (int64_t c = 0; c < lie_.dims; ++c) {
      T* sum = recent_ + c * size_;
      const T* g = generators.generator(c);
      Vec<T> dot{};
      each_lower(shape_, [&](int i, int j) {
        const int64_t at = int64_t(i) * shape_.stride + j;
        const Vec<T> v = load(z + at);
        store(sum + at, load(sum + at) + p[c] * v);
        // z holds anything above the diagonal and in the padding, where g is zero: 0 * NaN is NaN.
        const Vec<T> weight = load(g + at);
        dot += weight != T(0) ? weight * v : Vec<T>{};
      });
      if (positions == nullptr) continue;
      T result = 0;
      for (int l = 0; l < kLanes<T>; ++l) result += dot[l];
      positions[c] =
          2 * result;  // each pair (i, j), (j, i) counts twice, and <,> of the lower parts once
    }
    if (++added_ % kFlush == 0) flush();
  }

  // The packed gradient (dims, n(n-1)/2): twice the upper triangle, which is minus the lower.
  void write(T* packed) {
    flush();
    for (int64_t c = 0; c < lie_.dims; ++c)
      for (int64_t i = 0; i < shape_.n; ++i)
        for (int64_t j = i + 1; j < shape_.n; ++j)
          *packed++ = -2 * total_[c * size_ + j * shape_.stride + i];
  }

 private:
  // Sums of sums: the rounding error of a long sum in float would grow with its length.
  static constexpr int64_t kFlush = 64;
  const Lie& lie_;
  const Shape<Y>& shape_;
  const int64_t size_;
  Scratch<T> recent_, total_;
  int64_t added_ = 0;

  void clear(T* x) { std::memset(x, 0, size_t(lie_.dims * size_) * sizeof(T)); }
  void flush() {
    for (int64_t e = 0; e < lie_.dims * size_; ++e) total_[e] += recent_[e];
    clear(recent_);
  }
};

// Cuts the rotations of each (head, block) into chunks that depend on the sizes alone, so that sums
// come out the same for any number of threads.
struct LieChunks {
  int64_t items, chunks, each;

  explicit LieChunks(const Lie& lie) : items(lie.samples * lie.points) {
    constexpr int64_t kTasks = 64;  // enough to share among threads, few enough to hold a sum each
    const int64_t pairs = lie.heads * lie.blocks;
    const int64_t wanted = pairs > 0 ? (kTasks + pairs - 1) / pairs : 1;
    each = (items + wanted - 1) / wanted;
    if (each < 4) each = 4;
    chunks = (items + each - 1) / each;
  }
};

// generators_out (dims, pairs, packed) = sum over chunks of (pairs, chunks, dims, packed).
template <class T>
void sum_generators(const Lie& lie, int64_t chunks, int64_t packed, const T* sums, T* out) {
  const int64_t pairs = lie.heads * lie.blocks;
  parallel_for(lie.dims * pairs, 1 + 100000 / (packed * (chunks + 1)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t row = begin; row < end; ++row) {
                   const int64_t c = row / pairs, pair = row % pairs;
                   T* y = out + row * packed;
                   std::memset(y, 0, size_t(packed) * sizeof(T));
                   for (int64_t k = 0; k < chunks; ++k) {
                     const T* x = sums + ((pair * chunks + k) * lie.dims + c) * packed;
                     for (int64_t t = 0; t < packed; ++t) y[t] += x[t];
                   }
                 }
               });
}

// out (count) = sum over pairs of (pairs, count).
template <class T>
void sum_positions(int64_t pairs, int64_t count, const T* x, T* out) {
  parallel_for(count, 1 + 100000 / (pairs + 1), [&](int64_t begin, int64_t end) {
    for (int64_t e = begin; e < end; ++e) {
      T sum = 0;
      for (int64_t pair = 0; pair < pairs; ++pair) sum += x[pair * count + e];
      out[e] = sum;
    }
  });
}

// Runs the adjoint of every rotation: worker(index, good), with panel.a = kSign A and the chain for
// its rows() at hand, must set panel.w, unless the matrix is not finite: good is then false. Or, if
// worker.acts(bound of |A|), worker.act(index) sets panel.z without a chain.
template <class T, class Worker, class Params>
void each_adjoint(const Params& params, const Lie& lie, T* generators_out, T* positions_out) {
  const int n = int(lie.block_size);
  const int64_t packed = int64_t(n) * (n - 1) / 2, pairs = lie.heads * lie.blocks;
  const LieChunks cut(lie);
  Scratch<T> sums(pairs * cut.chunks * lie.dims * packed);
  Scratch<T> by_pair(positions_out != nullptr ? pairs * cut.items * lie.dims : 0);

  parallel_for(pairs * cut.chunks, 1, [&](int64_t begin, int64_t end) {
    Panel<RowLayout<T>> panel(n);
    LieBlock<T> generators(lie, panel.shape);
    Worker worker(params, panel);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t pair = task / cut.chunks, first = task % cut.chunks * cut.each;
      generators.select(pair / lie.blocks, pair % lie.blocks);
      LieGradients<T> gradients(lie, panel.shape, generators.size());
      for (int64_t item = first; item < least64(first + cut.each, cut.items); ++item) {
        const RotationIndex index{item / lie.points, pair / lie.blocks, pair % lie.blocks,
                                  item % lie.points};
        const T* p = generators.position(index.sample, index.point);
        generators.template contract<Worker::kSign>(p, panel.a);
        if (worker.acts([&] { return generators.norm_bound(p, panel); })) {
          worker.act(index);
        } else {
          const bool good = panel.chain(worker.rows());
          worker(index, good);
          if (good)
            panel.pull_back();
          else
            panel.poison(panel.z);
        }
        panel.clear_padding(panel.z);  // beside the zeros of the generators' padding
        gradients.add(
            generators, p, panel.z,
            positions_out == nullptr ? nullptr : by_pair + (pair * cut.items + item) * lie.dims);
      }
      gradients.write(sums + task * lie.dims * packed);
    }
  });
  sum_generators(lie, cut.chunks, packed, static_cast<const T*>(sums), generators_out);
  if (positions_out != nullptr)
    sum_positions(pairs, cut.items * lie.dims, static_cast<const T*>(by_pair), positions_out);
}

}  // namespace lierope::cpu::LIEROPE_ISA
