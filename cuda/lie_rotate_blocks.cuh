// lie_rotate and its adjoint where a square of threads shares a rotation: rows of the batch are
// turned by products.
#pragma once
#include "lie_rotate_threads.cuh"

namespace lierope::cuda {

// The rows that one rotation turns: for each sequence its q heads, then its k heads.
template <class Storage>
struct TurnedRows {
  Rows<Storage> q, k;
  int64_t sequence, q_head, k_head, token, feature;  // the first of each
  unsigned q_each, each;

  __device__ __forceinline__ TurnedRows(const Tokens& shape, const LieItem& item,
                                        const LieIndex& at, int n, const Rows<Storage>& q_,
                                        const Rows<Storage>& k_)
      : q(q_),
        k(k_),
        sequence(shape.per_sample ? item.sample : 0),
        token(shape.prefix + item.point),
        feature(int64_t(at.block) * n),
        q_each(unsigned(shape.q_heads) / unsigned(shape.rotation_heads)),
        each(q_each + unsigned(shape.k_heads) / unsigned(shape.rotation_heads)) {
    q_head = int64_t(at.head) * q_each;
    k_head = int64_t(at.head) * (each - q_each);
  }
  __device__ __forceinline__ Storage* at(int row) const {
    const unsigned h = unsigned(row) % each;
    const int64_t b = sequence + unsigned(row) / each;
    return (h < q_each ? q.at(b, q_head + h, token) : k.at(b, k_head + (h - q_each), token)) +
           feature;
  }
};
__device__ __forceinline__ int turned_rows(const Tokens& shape) {
  const int64_t heads = (shape.q_heads + shape.k_heads) / shape.rotation_heads;
  return int(shape.per_sample ? heads : heads * shape.batch);
}

// `count` rows from `first` on, into a buffer whose columns past n become zero.
template <bool wide, class T, int TS, class Storage>
__device__ __forceinline__ void read_rows(const Tiles<T, TS>& at, T* buffer,
                                          const TurnedRows<const Storage>& rows, int first,
                                          int count) {
  each_element(at, count, at.side / 4, [&](int i, int quad) {
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

// The rows x times m0, to memory.
template <bool wide, class T, int TS, class Storage>
__device__ __forceinline__ void turn_by_product(const BlockExponential<T, TS>& matrix, const T* x,
                                                const TurnedRows<Storage>& rows, int first,
                                                int count, bool wanted) {
  const Tiles<T, TS>& at = matrix.at;
  KeptFull<T, TS> product = matrix.full();
  product.multiply(x, matrix.m0, count);
  if (!wanted) return;
  product.each_row([&](int r, T(&line)[TS]) {
    const int row = at.full_row(r);
    if (row >= count) return;
    Storage* to = rows.at(first + row);
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

// By rows, y = R x is Y = X exp(-A).
template <class T, int TS>
__global__ void __launch_bounds__(kBlockThreads<T, TS>, kBlockOccupancy<T, TS>)
    lie_rotate_block(LieRotateParams p, LieChunks cut, BlockPlan<T, TS> plan, bool wide) {
  LIEROPE_DYNAMIC_SHARED(T, shared);
  const Lie& lie = p.lie;
  each_lie_item(plan, cut, [&](const LieTask& task, bool wanted) {
    plan.matrix(shared).template exponential<-1, true>(LieMatrix<T>(lie, task.index(lie, cut), 1));
    const BlockExponential<T, TS> matrix = plan.matrix(shared);
    const LieIndex index = task.index(lie, cut);
    const LieItem item(index.item, lie.points, cut.per_point);
    const int rows = turned_rows(p.shape);
    with_rows<T>(p.shape.dtype, wide, [&](auto storage, auto is_wide) {
      using Storage = decltype(storage);
      const TurnedRows<const Storage> x(p.shape, item, index, plan.n, reads<Storage>(p.q),
                                        reads<Storage>(p.k));
      const TurnedRows<Storage> y(p.shape, item, index, plan.n,
                                  writes<Storage>(p.shape, p.q_out, p.shape.q_heads),
                                  writes<Storage>(p.shape, p.k_out, p.shape.k_heads));
      LIEROPE_ROLLED
      for (int first = 0; first < rows; first += matrix.at.side) {
        const int count = rows - first < matrix.at.side ? rows - first : matrix.at.side;
        read_rows<is_wide>(matrix.at, matrix.m1, x, first, count);
        __syncthreads();
        turn_by_product<is_wide>(matrix, static_cast<const T*>(matrix.m1), y, first, count, wanted);
        __syncthreads();
      }
    });
  });
}

// By rows, x_grad = R^T y_grad is Y_grad R, with R in m0; w = Y_grad^T Y - Y^T Y_grad.
template <class T, int TS>
__device__ __forceinline__ void turn_back(const LieRotateBackwardParams& p, const LieTask& task,
                                          const LieChunks& cut, const BlockPlan<T, TS>& plan,
                                          bool wide, bool wanted, T* shared, Kept<T, TS>& w) {
  const Lie& lie = p.lie;
  const BlockExponential<T, TS> matrix = plan.matrix(shared);
  const Tiles<T, TS>& at = matrix.at;
  const LieIndex index = task.index(lie, cut);
  const LieItem item(index.item, lie.points, cut.per_point);
  const int rows = turned_rows(p.shape);
  const int at_once = plan.buffers > 2 ? at.side : at.side / 2;
  T *values = matrix.m1, *grads = values + int64_t(at_once) * at.stride;
  w.set([](int) { return T(0); });
  with_rows<T>(p.shape.dtype, wide, [&](auto storage, auto is_wide) {
    using Storage = decltype(storage);
    const TurnedRows<const Storage> y(p.shape, item, index, plan.n, reads<Storage>(p.q_rotated),
                                      reads<Storage>(p.k_rotated));
    const TurnedRows<const Storage> y_grad(p.shape, item, index, plan.n, reads<Storage>(p.q_grad),
                                           reads<Storage>(p.k_grad));
    const TurnedRows<Storage> x_grad(p.shape, item, index, plan.n,
                                     writes<Storage>(p.shape, p.q_out, p.shape.q_heads),
                                     writes<Storage>(p.shape, p.k_out, p.shape.k_heads));
    LIEROPE_ROLLED
    for (int first = 0; first < rows; first += at_once) {
      const int count = rows - first < at_once ? rows - first : at_once;
      read_rows<is_wide>(at, values, y, first, count);
      read_rows<is_wide>(at, grads, y_grad, first, count);
      __syncthreads();
      turn_by_product<is_wide>(matrix, static_cast<const T*>(grads), x_grad, first, count, wanted);
      HalfTile<T, TS> sum = zero_half<T, TS>();
      add_half_product<1>(at, sum, grads, values, count);
      add_half_product<-1>(at, sum, values, grads, count);
      complete<-1>(at, sum);
      Kept<T, TS> recent(at, matrix.room.kept, 0);
      recent = sum;
      w.set([&](int e) { return w[e] + recent[e]; });
      __syncthreads();
    }
  });
}

template <class T, int TS>
__global__ void __launch_bounds__(kBlockThreads<T, TS>, kBlockOccupancy<T, TS>)
    lie_rotate_backward_block(LieRotateBackwardParams p, LieChunks cut, LieSums<T> sums,
                              BlockPlan<T, TS> plan, bool wide) {
  LIEROPE_DYNAMIC_SHARED(T, shared);
  const Lie& lie = p.lie;
  each_lie_item(plan, cut, [&](const LieTask& task, bool wanted) {
    plan.matrix(shared).template exponential<1, true>(LieMatrix<T>(lie, task.index(lie, cut), 1));
    BlockExponential<T, TS> matrix = plan.matrix(shared);
    Kept<T, TS> w(matrix.at, matrix.room.kept, kKeptW);
    turn_back(p, task, cut, plan, wide, wanted, shared, w);
    matrix.adjoint(LieMatrix<T>(lie, task.index(lie, cut), -1), w);
    write_skew(matrix.at, matrix.m1, w);
    __syncthreads();
    add_lie_gradient(plan.matrix(shared), lie, sums, task, cut, wanted);
  });
}

}  // namespace lierope::cuda
