// lie_rotate and its adjoint where a square of threads shares a rotation: rows of the batch are
// turned by products.
#pragma once
#include "lie_rotate_threads.cuh"

namespace lierope::cuda {

// A rotation, in numbers that take few registers: every dimension is below 2^31.
struct RotationPlace {
  int head, block, sample, point;

  __device__ __forceinline__ RotationPlace(const Lie& lie, const LieIndex& at, double per_point)
      : head(at.head), block(at.block) {
    const LieItem item(at.item, lie.points, per_point);
    sample = int(item.sample);
    point = int(item.point);
  }
};

// The rows that one rotation turns: for each sequence its q heads, then its k heads.
template <class Storage>
struct TurnedRows {
  const View& q;
  const View& k;
  int sequence, q_head, k_head, token, feature;  // the first of each
  unsigned q_each, each;

  __device__ __forceinline__ TurnedRows(const View& q_, const View& k_, const TurnedSides& sides,
                                        const RotationPlace& place, int n)
      : q(q_),
        k(k_),
        sequence(sides.per_sample ? place.sample : 0),
        q_head(place.head * int(sides.q.each)),
        k_head(place.head * int(sides.k.each)),
        token(int(sides.prefix) + place.point),
        feature(place.block * n),
        q_each(unsigned(sides.q.each)),
        each(unsigned(sides.q.each + sides.k.each)) {}

  __device__ __forceinline__ const Storage* at(int row) const {
    const unsigned h = unsigned(row) % each;
    const int64_t b = sequence + int(unsigned(row) / each);
    return h < q_each ? row_of<Storage>(q, b, q_head + h, token, feature)
                      : row_of<Storage>(k, b, k_head + (h - q_each), token, feature);
  }
};
__device__ __forceinline__ int turned_rows(const TurnedSides& sides) {
  const int64_t heads = sides.q.each + sides.k.each;
  return int(sides.per_sample ? heads : heads * sides.batch);
}

// What one rotation turns, and where its threads are.
template <class T, int TS>
struct TurningBlock {
  const TurnedSides& sides;
  const BlockExponential<T, TS>& matrix;
  const RotationPlace& place;
  bool wanted;
};

// `count` rows of q and k from `first` on, into a buffer whose columns past n become zero.
template <class T, int TS>
struct ReadRows {
  const TurningBlock<T, TS>& turning;
  const View& q;
  const View& k;
  T* buffer;
  int first, count;

  template <class Storage, bool wide>
  __device__ __forceinline__ void run() const {
    const Tiles<T, TS>& at = turning.matrix.at;
    const TurnedRows<Storage> rows(q, k, turning.sides, turning.place, at.n);
    each_element<4>(at, count, at.side / 4, [&](int i, int quad) {
      const Storage* from = rows.at(first + i) + 4 * quad;
      T x[4];
      if (wide && 4 * quad + 4 <= at.n) {
        Run<Storage, 4, wide> run;
        run.load(from);
        widen_run(run, x);
      } else {
        LIEROPE_UNROLL
        for (int c = 0; c < 4; ++c) x[c] = 4 * quad + c < at.n ? T(widen(from[c])) : T(0);
      }
      store_numbers<4>(buffer + i * at.stride + 4 * quad, x);
    });
  }
};

// The rows of a product, to memory.
template <class T, int TS>
struct WriteRows {
  const TurningBlock<T, TS>& turning;
  KeptFull<T, TS>& product;
  int first, count;

  template <class Storage, bool wide>
  __device__ __forceinline__ void run() const {
    const Tiles<T, TS>& at = turning.matrix.at;
    const TurnedSides& sides = turning.sides;
    const TurnedRows<Storage> rows(sides.q.out, sides.k.out, sides, turning.place, at.n);
    product.each_row([&](int r, const T(&line)[TS]) {
      const int row = at.full_row(r);
      if (row >= count) return;
      Storage* to = const_cast<Storage*>(rows.at(first + row));
      LIEROPE_UNROLL
      for (int q = 0; q < TS / 4; ++q) {
        const int column = at.full_quad(q);
        if (wide && column + 4 <= at.n) {
          store_row<4, wide>(line + 4 * q, to + column);
        } else {
          LIEROPE_UNROLL
          for (int c = 0; c < 4; ++c)
            if (column + c < at.n) to[column + c] = narrow<Storage>(line[4 * q + c]);
        }
      }
    });
  }
};

// The rows x times m0.
template <class T, int TS>
__device__ __forceinline__ void turn_by_product(const TurningBlock<T, TS>& turning, const T* x,
                                                int first, int count) {
  KeptFull<T, TS> product = turning.matrix.full();
  product.multiply(x, turning.matrix.m0, count);
  if (turning.wanted) with_rows<T>(turning.sides, WriteRows<T, TS>{turning, product, first, count});
}

// By rows, y = R x is Y = X exp(-A), which is in m0.
template <class T, int TS>
__device__ __forceinline__ void turn_by_block(const TurningBlock<T, TS>& turning) {
  const TurnedSides& sides = turning.sides;
  T* const x = turning.matrix.m1;
  const int rows = turned_rows(sides), at_once = turning.matrix.at.side;
  LIEROPE_ROLLED
  for (int first = 0; first < rows; first += at_once) {
    const int count = rows - first < at_once ? rows - first : at_once;
    with_rows<T>(sides, ReadRows<T, TS>{turning, sides.q.x, sides.k.x, x, first, count});
    __syncthreads();
    turn_by_product(turning, x, first, count);
    __syncthreads();
  }
}

// By rows, x_grad = R^T y_grad is Y_grad R, with R in m0; w = Y_grad^T Y - Y^T Y_grad. Two times
// `at_once` rows have room from m1 on.
template <class T, int TS>
__device__ __forceinline__ void turn_back_by_block(const TurningBlock<T, TS>& turning, int at_once,
                                                   Kept<T, TS>& w) {
  const TurnedSides& sides = turning.sides;
  const Tiles<T, TS>& at = turning.matrix.at;
  T *values = turning.matrix.m1, *grads = values + at_once * at.stride;
  const int rows = turned_rows(sides);
  HalfTile<T, TS> sum = zero_half<T, TS>();
  if constexpr (kInWorkspace<T, TS>) w.set([](int) { return T(0); });
  LIEROPE_ROLLED
  for (int first = 0; first < rows; first += at_once) {
    const int count = rows - first < at_once ? rows - first : at_once;
    LIEROPE_ROLLED
    for (int side = 0; side < 2; ++side)
      with_rows<T>(sides, ReadRows<T, TS>{turning, side ? sides.q.grad : sides.q.x,
                                          side ? sides.k.grad : sides.k.x, side ? grads : values,
                                          first, count});
    __syncthreads();
    turn_by_product(turning, grads, first, count);
    add_half_product<1>(at, sum, grads, values, count);
    add_half_product<-1>(at, sum, values, grads, count);
    if constexpr (kInWorkspace<T, TS>) {
      complete<-1>(at, sum);
      Kept<T, TS> recent(at, turning.matrix.room.kept, 0);
      recent = sum;
      w.set([&](int e) { return w[e] + recent[e]; });
      sum = zero_half<T, TS>();
    }
    __syncthreads();
  }
  if constexpr (!kInWorkspace<T, TS>) {
    complete<-1>(at, sum);
    w = sum;
  }
}

template <class T, int TS>
__global__ void __launch_bounds__(kBlockThreads<T, TS>, kBlockOccupancy<T, TS>)
    lie_rotate_block(Lie lie, TurnedSides sides, LieChunks cut, BlockPlan<T, TS> plan) {
  LIEROPE_DYNAMIC_SHARED(T, shared);
  each_lie_item(plan, cut, [&](const LieTask& task, bool wanted) {
    plan.matrix(shared).template exponential<-1, true>(LieMatrix<T>(lie, task.index(lie, cut), 1));
    const BlockExponential<T, TS> matrix = plan.matrix(shared);
    const RotationPlace place(lie, task.index(lie, cut), cut.per_point);
    turn_by_block(TurningBlock<T, TS>{sides, matrix, place, wanted});
  });
}

// Fewer blocks at once than kBlockOccupancy: sums of outer products stay beside a product.
template <class T, int TS>
inline constexpr int kTurningBackOccupancy =
    kBlockOccupancy<T, TS> > 6 ? 6 : kBlockOccupancy<T, TS>;

template <class T, int TS>
__global__ void __launch_bounds__(kBlockThreads<T, TS>, kTurningBackOccupancy<T, TS>)
    lie_rotate_backward_block(Lie lie, TurnedSides sides, LieChunks cut, LieSums<T> sums,
                              BlockPlan<T, TS> plan) {
  LIEROPE_DYNAMIC_SHARED(T, shared);
  each_lie_item(plan, cut, [&](const LieTask& task, bool wanted) {
    plan.matrix(shared).template exponential<1, true>(LieMatrix<T>(lie, task.index(lie, cut), 1));
    BlockExponential<T, TS> matrix = plan.matrix(shared);
    Kept<T, TS> w(matrix.at, matrix.room.kept, kKeptW);
    {
      const BlockExponential<T, TS> turned = plan.matrix(shared);
      const RotationPlace place(lie, task.index(lie, cut), cut.per_point);
      const int at_once = plan.buffers > 2 ? turned.at.side : turned.at.side / 2;
      turn_back_by_block(TurningBlock<T, TS>{sides, turned, place, wanted}, at_once, w);
    }
    BlockExponential<T, TS> backward = plan.matrix(shared);
    backward.adjoint(LieMatrix<T>(lie, task.index(lie, cut), -1), w);
    write_skew(backward.at, backward.m1, w);
    __syncthreads();
    add_lie_gradient(plan.matrix(shared), lie, sums, task, cut, wanted);
  });
}

}  // namespace lierope::cuda
