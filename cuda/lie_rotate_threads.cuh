// lie_rotate and its adjoint where one thread holds a rotation and turns the rows of a batch by it.
#pragma once
#include "lie_backward.cuh"
#include "rows.cuh"

namespace lierope::cuda {

// Calls f with a value of the storage type; only doubles are computed with in double.
template <class T, class F>
__device__ __forceinline__ void with_stored(DType dtype, F f) {
  if constexpr (sizeof(T) == 8) {
    f(double{});
  } else {
    switch (dtype) {
      case DType::bf16: return f(BFloat16{});
      case DType::f16: return f(Half{});
      default: return f(float{});
    }
  }
}

// Sequences first, first + step .. of the batch.
struct Sequences {
  int64_t first, last, step;

  // Those that a slice turns by a rotation; a sample's own rotation turns that sample alone.
  __device__ __forceinline__ Sequences(const Tokens& shape, int64_t sample, int slice, int slices)
      : first(shape.per_sample ? sample : slice),
        last(shape.per_sample ? sample + (slice == 0) : shape.batch),
        step(slices) {}
};

// Where the rows of one rotation are: heads first_head .. of a token, features from `feature` on.
struct TurnedHeads {
  int64_t first_head, heads, token, feature;

  __device__ __forceinline__ TurnedHeads(const Tokens& shape, int64_t heads_of_side,
                                         int64_t rotation_head, int64_t point, int64_t feature_)
      : heads(heads_of_side / shape.rotation_heads),
        token(shape.prefix + point),
        feature(feature_) {
    first_head = rotation_head * heads;
  }
};

// out = r x: `r` by rows.
template <int N, class T>
__device__ __forceinline__ void turn(const T* r, const T* x, T* out) {
  LIEROPE_EACH(i, 0, N) out[i] = r[i * N] * x[0];
  LIEROPE_EACH(j, 1, N) LIEROPE_EACH(i, 0, N) out[i] += r[i * N + j] * x[j];
}
template <int N, bool wide, class Storage, class T>
__device__ __forceinline__ void widen_run(const Run<Storage, N, wide>& run, T* x) {
  LIEROPE_EACH(i, 0, N) x[i] = widen(run.v[i]);
}
template <int N, bool wide, class Storage, class T>
__device__ __forceinline__ void store_row(const T* x, Storage* out) {
  Run<Storage, N, wide> run;
  LIEROPE_EACH(i, 0, N) run.v[i] = narrow<Storage>(x[i]);
  run.store(out);
}

// Several rows are asked for before the first is used.
template <int N, bool wide, class Storage, class T>
__device__ __forceinline__ void turn_rows(const Rows<const Storage>& x, const Rows<Storage>& y,
                                          const TurnedHeads& at, const Sequences& sequences,
                                          const T* r) {
  constexpr int kAhead = 4;
  for (int64_t h = at.first_head; h < at.first_head + at.heads; ++h) {
    LIEROPE_ROLLED
    for (int64_t b = sequences.first; b < sequences.last; b += kAhead * sequences.step) {
      Run<Storage, N, wide> runs[kAhead];
      LIEROPE_EACH(u, 0, kAhead) {
        const int64_t row = b + u * sequences.step;
        if (row < sequences.last) runs[u].load(x.at(row, h, at.token) + at.feature);
      }
      LIEROPE_EACH(u, 0, kAhead) {
        const int64_t row = b + u * sequences.step;
        if (row >= sequences.last) continue;
        T in[N], out[N];
        widen_run(runs[u], in);
        turn<N>(r, static_cast<const T*>(in), out);
        store_row<N, wide>(static_cast<const T*>(out), y.at(row, h, at.token) + at.feature);
      }
    }
  }
}

// x_grad = r y_grad; w += y_grad y^T - y y_grad^T.
template <int N, bool wide, class Storage, class T>
__device__ __forceinline__ void turn_rows_back(const Rows<const Storage>& y,
                                               const Rows<const Storage>& y_grad,
                                               const Rows<Storage>& x_grad, const TurnedHeads& at,
                                               const Sequences& sequences, const T* r, T* w) {
  constexpr int kAhead = 2;
  for (int64_t h = at.first_head; h < at.first_head + at.heads; ++h) {
    LIEROPE_ROLLED
    for (int64_t b = sequences.first; b < sequences.last; b += kAhead * sequences.step) {
      Run<Storage, N, wide> grads[kAhead], values[kAhead];
      LIEROPE_EACH(u, 0, kAhead) {
        const int64_t row = b + u * sequences.step;
        if (row >= sequences.last) continue;
        grads[u].load(y_grad.at(row, h, at.token) + at.feature);
        values[u].load(y.at(row, h, at.token) + at.feature);
      }
      LIEROPE_EACH(u, 0, kAhead) {
        const int64_t row = b + u * sequences.step;
        if (row >= sequences.last) continue;
        T grad[N], value[N], out[N];
        widen_run(grads[u], grad);
        turn<N>(r, static_cast<const T*>(grad), out);
        store_row<N, wide>(static_cast<const T*>(out), x_grad.at(row, h, at.token) + at.feature);
        widen_run(values[u], value);
        LIEROPE_EACH(i, 0, N) LIEROPE_EACH(j, i + 1, N) {
          T& sum = w[SkewTriangle<T, N>::index(i, j)];
          sum += grad[i] * value[j];
          sum -= value[i] * grad[j];
        }
      }
    }
  }
}

// f(storage, wide) with constants for what rows are.
template <class T, class F>
__device__ __forceinline__ void with_rows(DType dtype, bool wide, F f) {
  with_stored<T>(dtype, [&](auto storage) {
    if (wide)
      f(storage, std::true_type{});
    else
      f(storage, std::false_type{});
  });
}

template <class T, int N>
__global__ void __launch_bounds__(kMatrixThreads, kThreadOccupancy<T, N>)
    lie_rotate_threads(LieRotateParams p, LieThreads plan, bool wide) {
  const Lie& lie = p.lie;
  const Tokens& shape = p.shape;
  const LieThread at(plan, lie);
  const int64_t item = at.first + at.point;
  if (!at.has(plan, lie, item)) return;
  T a[kTriangleRoom<N>], r[N * N];
  contract<N>(generators_of<T>(lie, at.head, at.block), lie.heads * lie.blocks * kTriangle<N>,
              position_of<T>(lie, item), lie.dims, T(1), a);
  thread_exponential<N>(static_cast<const T*>(a), r);
  const LieItem where(item, lie.points, plan.per_point);
  const Sequences sequences(shape, where.sample, int(blockIdx.y), int(gridDim.y));
  const TurnedHeads q(shape, shape.q_heads, at.head, where.point, at.block * N);
  const TurnedHeads k(shape, shape.k_heads, at.head, where.point, at.block * N);
  with_rows<T>(shape.dtype, wide, [&](auto storage, auto is_wide) {
    using Storage = decltype(storage);
    turn_rows<N, is_wide>(reads<Storage>(p.q), writes<Storage>(shape, p.q_out, shape.q_heads), q,
                          sequences, static_cast<const T*>(r));
    turn_rows<N, is_wide>(reads<Storage>(p.k), writes<Storage>(shape, p.k_out, shape.k_heads), k,
                          sequences, static_cast<const T*>(r));
  });
}

// Room of a thread for its W or 2 Abar: an odd number, so that neighbours meet different banks.
template <int N>
inline constexpr int kTriangleSlot = kTriangle<N> | 1;

template <class T, int N>
__device__ __forceinline__ void rotate_back(const LieRotateBackwardParams& p,
                                            const LieThreads& plan, const LieThread& at,
                                            const LieItem& where, bool wide, const T* a, T* w) {
  const Tokens& shape = p.shape;
  T r[N * N];
  thread_exponential<N>(a, r);
  LIEROPE_EACH(t, 0, kTriangle<N>) w[t] = 0;
  const Sequences sequences(shape, where.sample, at.slice, plan.slices);
  const TurnedHeads q(shape, shape.q_heads, at.head, where.point, at.block * N);
  const TurnedHeads k(shape, shape.k_heads, at.head, where.point, at.block * N);
  with_rows<T>(shape.dtype, wide, [&](auto storage, auto is_wide) {
    using Storage = decltype(storage);
    turn_rows_back<N, is_wide>(reads<Storage>(p.q_rotated), reads<Storage>(p.q_grad),
                               writes<Storage>(shape, p.q_out, shape.q_heads), q, sequences,
                               static_cast<const T*>(r), w);
    turn_rows_back<N, is_wide>(reads<Storage>(p.k_rotated), reads<Storage>(p.k_grad),
                               writes<Storage>(shape, p.k_out, shape.k_heads), k, sequences,
                               static_cast<const T*>(r), w);
  });
}

// W of all slices, by the threads of the first.
template <int N, class T>
__device__ __forceinline__ void add_slices(const LieThreads& plan, const LieThread& at, T* slots,
                                           T* w) {
  if (plan.slices == 1) return;
  T* slot = slots + int(threadIdx.x) * kTriangleSlot<N>;
  if (at.slice < plan.slices) LIEROPE_EACH(t, 0, kTriangle<N>) slot[t] = w[t];
  __syncthreads();
  if (at.slice == 0) {
    for (int s = 1; s < plan.slices; ++s) {
      slot += plan.columns * plan.points * kTriangleSlot<N>;
      LIEROPE_EACH(t, 0, kTriangle<N>) w[t] += slot[t];
    }
  }
  __syncthreads();
}

// Everything of -A: x_grad = exp(-A) y_grad, Abar = psi(ad_-A) skew(y_grad y^T).
template <class T, int N>
__global__ void __launch_bounds__(kMatrixThreads, kThreadOccupancy<T, N>)
    lie_rotate_backward_threads(LieRotateBackwardParams p, LieThreads plan, LieSums<T> sums,
                                bool wide) {
  LIEROPE_DYNAMIC_SHARED(T, slots);
  const Lie& lie = p.lie;
  const LieThread at(plan, lie);
  LieItem where(at.first + at.point, lie.points, plan.per_point);
  LIEROPE_ROLLED
  for (int64_t group = at.first; group < at.last; group += plan.points) {
    const int64_t item = group + at.point;
    const bool mine = at.has(plan, lie, item);
    T a[kTriangleRoom<N>], w[kTriangleRoom<N>];
    LIEROPE_EACH(t, 0, kTriangle<N>) w[t] = 0;
    if (mine) {
      contract<N>(generators_of<T>(lie, at.head, at.block), lie.heads * lie.blocks * kTriangle<N>,
                  position_of<T>(lie, item), lie.dims, T(-1), a);
      rotate_back<T, N>(p, plan, at, where, wide, static_cast<const T*>(a), w);
    }
    add_slices<N>(plan, at, slots, w);
    if (mine && at.slice == 0) {
      thread_adjoint<N>(static_cast<const T*>(a), w);
      write_position_gradient<N>(lie, sums, at, item, static_cast<const T*>(w));
      LIEROPE_EACH(t, 0, kTriangle<N>) slots[at.local * kTriangleSlot<N> + t] = w[t];
    }
    __syncthreads();
    add_generator_gradients<N>(plan, lie, sums, at, group, static_cast<const T*>(slots),
                               kTriangleSlot<N>);
    where.advance(plan.points, lie.points);
    __syncthreads();
  }
}

}  // namespace lierope::cuda
