// Adjoints of the rotations of generators and positions for panel blocks, summed over positions.
#pragma once
#include "panel_lie.h"
#include "panel_moments.h"
#include "panel_moments_series.h"
#include "sums.h"

namespace lierope::cpu::LIEROPE_ISA {

// Sums over the rotations of one (head, block): of p_c z for the generators, <A_c, z> for
// positions.
template <class Y>
class LieGradients {
 public:
  using T = typename Y::Number;
  using E = typename Y::Element;
  using V = typename Y::Vector;

  LieGradients(const Lie& lie, const Shape<Y>& shape)
      : lie_(lie),
        shape_(shape),
        size_(int64_t(shape.columns) * shape.stride),
        sum_(lie.dims * size_) {}

  // positions: dims numbers to be written, or null. z: Abar in its lower part.
  void add(const LieBlock<Y>& generators, const E* p, const E* z, E* positions) {
    for (int64_t c = 0; c < lie_.dims; ++c) {
      E* sum = sum_.recent() + c * size_;
      const T* g = generators.generator(c);
      V dot{};
      each_lower(shape_, [&](int i, int j) {
        const int64_t at = int64_t(i) * shape_.stride + j;
        const V v = get<Y>(z + at);
        put<Y>(sum + at, get<Y>(sum + at) + p[c] * v);
        // z holds anything above the diagonal and in the padding, where g is zero: 0 * NaN is NaN.
        const auto weight = generators.weight(g + at);
        dot += weight != T(0) ? weight * v : V{};
      });
      if (positions == nullptr) continue;
      // Each pair (i, j), (j, i) counts twice, and <,> of the lower parts once.
      positions[c] = T(2) * across<Y>(dot);
    }
    sum_.added();
  }

  // The packed gradient (dims, n(n-1)/2): twice the upper triangle, which is minus the lower.
  void write(T* packed) {
    const E* total = sum_.total();
    for (int64_t c = 0; c < lie_.dims; ++c)
      for (int64_t i = 0; i < shape_.n; ++i)
        for (int64_t j = i + 1; j < shape_.n; ++j)
          *packed++ = -2 * number(total[c * size_ + j * shape_.stride + i]);
  }

 private:
  const Lie& lie_;
  const Shape<Y>& shape_;
  const int64_t size_;
  LongSum<E> sum_;

  static T number(E x) {
    if constexpr (Y::kLanewise)
      return across<RowLayout<T>>(x);
    else
      return x;
  }
};

// Cuts the rays (or groups of them) of each (head, block) into chunks that depend on sizes alone,
// so that sums come out the same for any number of threads.
struct LieChunks {
  int64_t rays, chunks, each;

  // At most `wanted` chunks of at least so many rays.
  LieChunks(int64_t count, int64_t wanted, int64_t least_each) : rays(count) {
    each = most64((rays + wanted - 1) / wanted, least_each);
    chunks = (rays + each - 1) / each;
  }
  static LieChunks of(const Lie& lie, int64_t count, int64_t least_each) {
    constexpr int64_t kTasks = 64;  // enough to share among threads, few enough to hold a sum each
    const int64_t pairs = most64(lie.heads * lie.blocks, 1);
    return {count, (kTasks + pairs - 1) / pairs, least_each};
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

// Makes the adjoints of rotations for a worker, made from (params, panel), with rows() to be turned
// and
//   worker(index, good)     after the chain of panel.a = kSign A, sets panel.w; not if A is not
//                           finite: good is then false
//   given(index, x)         the same with x = exp(-kSign A), null for that reason
//   acts(bound, members, commutators)
//                           whether act(index), which sets panel.z without a chain, is cheaper than
//                           a chain and so many commutators: see LieRange
template <class Worker>
class LieAdjointRange {
 public:
  using Y = typename Worker::Y;
  using T = typename Y::Number;
  static constexpr int kSign = Worker::kSign;
  static constexpr bool kMoments = true;
  static constexpr int64_t kLeastUnits = 4;  // of a chunk

  template <class Params>
  static Rays units(const Params&, const Lie& lie, bool together) {
    return Rays(lie, together ? Rays::kLongest : 0);
  }
  template <class Params>
  LieAdjointRange(const Params& params, const Lie& lie, const Rays& rays,
                  const MomentsPlan<T>& plan)
      : lie_(lie),
        plan_(plan),
        panel_(int(lie.block_size)),
        generators_(lie, panel_.shape),
        worker_(params, panel_),
        powers_(panel_),
        sums_(panel_, rays.longest()),
        moments_(lie, plan) {}

  // For the rays from `first` to `last` of one (head, block): `packed` becomes the gradient of its
  // generators; positions (items, dims), or null. Where `plan` wants moments, those take most rays,
  // and the gradient is that of the others. Returns whether there are moments.
  bool adjoint(int64_t pair, const Rays& rays, int64_t first, int64_t last, T* packed, T* positions,
               T* moments) {
    generators_.select(pair / lie_.blocks, pair % lie_.blocks);
    if (plan_.wanted) moments_.start(generators_, panel_, moments);
    LieGradients<Y> gradients(lie_, panel_.shape);
    const auto add = [&](int64_t item) {
      panel_.clear_padding(panel_.z);  // beside the zeros of the generators' padding
      gradients.add(generators_, generators_.position(item), panel_.z,
                    positions == nullptr ? nullptr : positions + item * lie_.dims);
    };
    for (int64_t r = first; r < last; ++r) {
      const Ray ray = rays[r];
      if (ray.count > 1 && !acts_along(generators_, panel_, worker_, ray, plan_.commutators())) {
        if (pull_back_ray(pair, ray)) add(ray.root());
        continue;
      }
      for (int64_t m = 0; m < ray.count; ++m)
        if (pull_back_one(pair, ray.members[m].item)) add(ray.members[m].item);
    }
    gradients.write(packed);
    return plan_.wanted && moments_.finish();
  }

 private:
  const Lie& lie_;
  const MomentsPlan<T>& plan_;
  Panel<Y> panel_;
  LieBlock<Y> generators_;
  Worker worker_;
  Powers<Y> powers_;
  RaySums<Y> sums_;
  MomentSums<T> moments_;

  // panel.z of one rotation; false if moments have taken it.
  bool pull_back_one(int64_t pair, int64_t item) {
    const RotationIndex index(lie_, pair, item);
    const T* p = generators_.position(item);
    generators_.template contract<Worker::kSign>(p, panel_.a);
    if (worker_.acts([&] { return generators_.norm_bound(p, panel_); }, 1, plan_.commutators())) {
      worker_.act(index);
      return true;
    }
    worker_.expect(index, kProducts);
    const bool good = panel_.chain(worker_.rows());
    worker_(index, good);
    return pull_back(good, item);
  }
  // The same of all members of a ray, as a gradient of the root's.
  bool pull_back_ray(int64_t pair, const Ray& ray) {
    generators_.template contract<Worker::kSign>(generators_.position(ray.root()), panel_.a);
    worker_.expect(RotationIndex(lie_, pair, ray.root()), kProducts);
    const bool good = powers_.start_with_chain();
    sums_.clear();
    each_power(powers_, good, ray,
               [&](const RayMember& member, const RayMember* next, const T* inverse) {
                 if (next != nullptr) worker_.expect(RotationIndex(lie_, pair, next->item), 1);
                 worker_.given(RotationIndex(lie_, pair, member.item), inverse);
                 if (good) sums_.keep(member.multiple);
               });
    if (good) sums_.collect(ray.length());
    return pull_back(good, ray.root());
  }
  bool pull_back(bool good, int64_t item) {
    if (!good) {
      panel_.poison(panel_.z);
      return true;
    }
    panel_.double_up();
    if (plan_.wanted && moments_.add(generators_.position(item), panel_)) return false;
    panel_.series();
    return true;
  }
};

// Adds to each pair's parts of the gradient (pairs, parts, dims, packed) a last one, from moments.
template <class T, int sign>
void write_moments(const Lie& lie, const MomentsPlan<T>& plan, int64_t chunks, T* moments,
                   bool* there, int64_t each, T* gradients) {
  const int64_t pairs = lie.heads * lie.blocks;
  sum_moments(plan, pairs, chunks, moments, there);
  parallel_for(pairs, 1, [&](int64_t begin, int64_t end) {
    MomentSeries<T, sign> series(lie, plan);
    for (int64_t pair = begin; pair < end; ++pair) {
      T* out = gradients + ((pair + 1) * (chunks + 1) - 1) * each;
      if (there[pair * chunks])
        series.write(pair, moments + pair * chunks * plan.size, out);
      else
        std::memset(out, 0, size_t(each) * sizeof(T));
    }
  });
}

// Runs the adjoint of every rotation. Rays are not taken together, nor are moments, where each
// position has a gradient of its own.
template <class Range, class T, class Params>
void each_adjoint(const Params& params, const Lie& lie, T* generators_out, T* positions_out) {
  const auto rays = Range::units(params, lie, positions_out == nullptr);
  const MomentsPlan<T> plan(lie, rays.count(), positions_out == nullptr && Range::kMoments);
  const int64_t n = lie.block_size, packed = n * (n - 1) / 2, pairs = lie.heads * lie.blocks;
  const int64_t each_pair = lie.samples * lie.points * lie.dims;  // gradients of positions
  const LieChunks cut = plan.wanted ? LieChunks(rays.count(), plan.chunks, plan.kLeastRays)
                                    : LieChunks::of(lie, rays.count(), Range::kLeastUnits);
  const int64_t tasks = pairs * cut.chunks, parts = cut.chunks + plan.wanted;
  Scratch<T> sums(pairs * parts * lie.dims * packed);
  Scratch<T> by_pair(positions_out != nullptr ? pairs * each_pair : 0);
  Scratch<T> moments(tasks * plan.size);
  Scratch<bool> there(tasks);

  parallel_for(tasks, 1, [&](int64_t begin, int64_t end) {
    Range range(params, lie, rays, plan);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t pair = task / cut.chunks, chunk = task % cut.chunks, first = chunk * cut.each;
      there[task] = range.adjoint(pair, rays, first, least64(first + cut.each, cut.rays),
                                  sums + (pair * parts + chunk) * lie.dims * packed,
                                  positions_out == nullptr ? nullptr : by_pair + pair * each_pair,
                                  moments + task * plan.size);
    }
  });
  if (plan.wanted)
    write_moments<T, Range::kSign>(lie, plan, cut.chunks, moments, there, lie.dims * packed, sums);
  sum_generators(lie, parts, packed, static_cast<const T*>(sums), generators_out);
  if (positions_out != nullptr)
    sum_parts(pairs, each_pair, static_cast<const T*>(by_pair), positions_out);
}

}  // namespace lierope::cpu::LIEROPE_ISA
