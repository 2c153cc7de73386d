// Blocks that a square of threads shares: A from generators and a position, and the gradients of
// both from that of A.
#pragma once
#include "exponential_sides.cuh"
#include "lie_sums.cuh"

namespace lierope::cuda {

// One rotation: item = sample * points + point.
struct LieIndex {
  int head, block;
  int64_t item;
};

// Writes A = sign sum_c p_c A_c, times a factor.
template <class T>
struct LieMatrix {
  const T* generators;  // of this head and block
  const T* position;
  int64_t step, dims;  // step: to the next coordinate's
  T sign;

  __device__ __forceinline__ LieMatrix(const Lie& lie, const LieIndex& at, int sign_)
      : generators(static_cast<const T*>(lie.generators) +
                   (at.head * lie.blocks + at.block) * packed_size(lie)),
        position(static_cast<const T*>(lie.positions) + at.item * lie.dims),
        step(lie.heads * lie.blocks * packed_size(lie)),
        dims(lie.dims),
        sign(T(sign_)) {}

  template <int TS>
  __device__ __forceinline__ void operator()(const Tiles<T, TS>& at, T* out, T factor) const {
    fill_skew(at, out, sign * factor, [&](int i, int j) {
      const T* u = generators + packed_index(at.n, i, j);
      T sum = 0;
      for (int64_t c = 0; c < dims; ++c) sum += position[c] * u[c * step];
      return sum;
    });
  }
  static __device__ __forceinline__ int packed_index(int n, int i, int j) {  // i < j
    return i * (2 * n - i - 1) / 2 + j - i - 1;
  }
};

// The rotations of each (head, block), cut into chunks of items.
struct LieChunks {
  int64_t pairs, items, each, chunks;
  double per_point;  // 1 / lie.points

  // `slots` matrices run at once.
  LieChunks(const Lie& lie, int64_t slots)
      : pairs(lie.heads * lie.blocks),
        items(lie.samples * lie.points),
        per_point(reciprocal(lie.points)) {
    int64_t wanted = pairs > 0 ? slots / pairs : 1;
    wanted = wanted < 1 ? 1 : wanted > items ? items : wanted;
    each = items > 0 ? (items + wanted - 1) / wanted : 1;
    chunks = (items + each - 1) / each;
  }
  int64_t count() const { return pairs * chunks; }
  // Chunks so long that a plain sum of floats would lose digits.
  bool is_long() const { return each > 64; }
};

// Item `step` of the chunk of task `number`.
struct LieTask {
  int number, step;

  __device__ __forceinline__ int64_t chunk(const LieChunks& cut) const {
    return unsigned(number) / unsigned(cut.pairs);
  }
  __device__ __forceinline__ bool inside(const LieChunks& cut) const {
    return chunk(cut) * cut.each + step < cut.items;
  }
  // Computed anew at each call. The last item stands for those that are not inside.
  __device__ __forceinline__ LieIndex index(const Lie& lie, const LieChunks& cut) const {
    const unsigned known = unsigned(forgotten(number)), pairs = unsigned(cut.pairs);
    const unsigned pair = known % pairs, blocks = unsigned(lie.blocks);
    const int64_t item = int64_t(known / pairs) * cut.each + step;
    return {int(pair / blocks), int(pair % blocks), item < cut.items ? item : cut.items - 1};
  }
};

// Adds p_c 2 Abar to the generators' sums of a chunk, and writes <A_c, 2 Abar> for the position.
// 2 Abar is the skew matrix in m1.
template <class T, int TS>
__device__ __forceinline__ void add_lie_gradient(const BlockExponential<T, TS>& matrix,
                                                 const Lie& lie, const LieSums<T>& sums,
                                                 const LieTask& task, const LieChunks& cut,
                                                 bool wanted) {
  const LieIndex index = task.index(lie, cut);
  const int64_t chunk = task.chunk(cut);
  const bool first = task.step == 0;
  const Tiles<T, TS>& at = matrix.at;
  const LieMatrix<T> load(lie, index, 1);
  const int64_t own = (index.head * lie.blocks + index.block) * packed_size(lie);
  for (int64_t c = 0; c < lie.dims; ++c) {
    const int64_t begin = chunk * generators_size(lie) + c * load.step + own;
    const T p = load.position[c];
    T dot = 0;
    each_element(at, at.n, at.n, [&](int i, int j) {
      if (i >= j) return;
      const int t = LieMatrix<T>::packed_index(at.n, i, j);
      const T z = matrix.m1[i * at.stride + j];
      dot += load.generators[c * load.step + t] * z;
      if (!wanted) return;
      T& sum = sums.generators[begin + t];
      if (sums.lost == nullptr) {
        sum = first ? p * z : sum + p * z;
      } else {  // Kahan: the next term makes up for what rounding took
        T& lost = sums.lost[begin + t];
        const T term = p * z - (first ? T(0) : lost), old = first ? T(0) : sum;
        sum = old + term;
        lost = (sum - old) - term;
      }
    });
    if (sums.positions == nullptr) continue;
    const T total = matrix.sum(dot);
    const int64_t pair = index.head * lie.blocks + index.block;
    if (wanted && at.thread == 0)
      sums.positions[(pair * lie.samples * lie.points + index.item) * lie.dims + c] = total;
  }
}

// run(task, wanted) for every item of the chunks that a block has, all of its matrices in step. The
// pairs of one item lie side by side.
template <class T, int TS, class Run>
__device__ __forceinline__ void each_lie_item(const BlockPlan<T, TS>& plan, const LieChunks& cut,
                                              Run run) {
  each_matrix(plan, cut.pairs * cut.chunks, [&](int64_t number, bool wanted) {
    LieTask task{int(number), 0};
    LIEROPE_ROLLED
    for (; task.step < cut.each; ++task.step) {
      run(task, wanted && task.inside(cut));
      __syncthreads();
    }
  });
}

// Matrices that run at once on the device, about.
template <class T, int TS>
inline int64_t lie_slots(const BlockPlan<T, TS>& plan, const Launch& device) {
  const int64_t blocks = kInWorkspace<T, TS> ? 1 : 4;
  return blocks * device.multiprocessors * plan.matrices;
}

}  // namespace lierope::cuda
