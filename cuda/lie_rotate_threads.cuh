// lie_rotate and its adjoint where one thread holds a rotation and turns the rows of a batch by it.
#pragma once
#include "lie_backward.cuh"
#include "rows.cuh"

namespace lierope::cuda {

// q or k: what is read, its gradient (in a backward), what is written. Strides are computed by the
// host, so that they take no registers.
struct TurnedSide {
  View x, grad, out;
  int64_t each;  // heads that use one rotation
};
template <class Params>
inline TurnedSide turned_side(const Params& p, const View& x, const View& grad, void* out,
                              int64_t heads) {
  const auto rows = writes<char>(p.shape, out, heads);
  return {x, grad, {out, rows.batch, rows.head, rows.token}, heads / p.shape.rotation_heads};
}
struct TurnedSides {
  TurnedSide q, k;
  DType dtype;
  bool wide;  // whether rows allow wide accesses
  bool per_sample;
  int64_t batch, prefix;
};

// body.run<Storage, wide>() for what rows are; only doubles are computed with in double. The body
// is no lambda: those would not be inlined, and what they refer to would lie in memory.
template <class Storage, class Body>
__device__ __forceinline__ void with_width(bool wide, const Body& body) {
  if (wide)
    body.template run<Storage, true>();
  else
    body.template run<Storage, false>();
}
template <class T, class Body>
__device__ __forceinline__ void with_rows(const TurnedSides& sides, const Body& body) {
  if constexpr (sizeof(T) == 8)
    with_width<double>(sides.wide, body);
  else if (sides.dtype == DType::bf16)
    with_width<BFloat16>(sides.wide, body);
  else if (sides.dtype == DType::f16)
    with_width<Half>(sides.wide, body);
  else
    with_width<float>(sides.wide, body);
}

// The row of the sequence, head and token, from a feature on.
template <class Storage>
__device__ __forceinline__ const Storage* row_of(const View& view, int64_t b, int64_t h, int64_t n,
                                                 int64_t feature) {
  return static_cast<const Storage*>(view.data) + b * view.stride_batch + h * view.stride_head +
         n * view.stride_token + feature;
}

// Which rows a thread turns: of each head that uses its rotation, sequences first, first + step ..
struct TurnedPlace {
  int64_t first, last, step;
  int64_t head, token, feature;

  // A sample's own rotation turns that sample alone.
  __device__ __forceinline__ TurnedPlace(const TurnedSides& sides, const LieItem& item,
                                         int64_t head_, int64_t feature_, int slice, int slices)
      : first(sides.per_sample ? item.sample : slice),
        last(sides.per_sample ? item.sample + (slice == 0) : sides.batch),
        step(slices),
        head(head_),
        token(sides.prefix + item.point),
        feature(feature_) {}
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
__device__ __forceinline__ void turn_rows(const TurnedSide& side, const TurnedPlace& at,
                                          const T* r) {
  constexpr int kAhead = 4;
  LIEROPE_ROLLED
  for (int64_t h = at.head * side.each; h < (at.head + 1) * side.each; ++h) {
    const Storage* x = row_of<Storage>(side.x, at.first, h, at.token, at.feature);
    Storage* y = const_cast<Storage*>(row_of<Storage>(side.out, at.first, h, at.token, at.feature));
    const int64_t x_step = at.step * side.x.stride_batch, y_step = at.step * side.out.stride_batch;
    LIEROPE_ROLLED
    for (int64_t b = at.first; b < at.last; b += kAhead * at.step) {
      Run<Storage, N, wide> runs[kAhead];
      LIEROPE_EACH(u, 0, kAhead) {
        if (b + u * at.step < at.last) runs[u].load(x);
        x += x_step;
      }
      LIEROPE_EACH(u, 0, kAhead) {
        if (b + u * at.step < at.last) {
          T in[N], out[N];
          widen_run(runs[u], in);
          turn<N>(r, static_cast<const T*>(in), out);
          store_row<N, wide>(static_cast<const T*>(out), y);
        }
        y += y_step;
      }
    }
  }
}

// x_grad = r y_grad; w += y_grad y^T - y y_grad^T.
template <int N, bool wide, class Storage, class T>
__device__ __forceinline__ void turn_rows_back(const TurnedSide& side, const TurnedPlace& at,
                                               const T* r, T* w) {
  // What there are registers for beside r and w.
  constexpr int kAhead = !wide ? 1 : (N > 4 ? 1 : 2) * (sizeof(Storage) == 2 ? 2 : 1);
  LIEROPE_ROLLED
  for (int64_t h = at.head * side.each; h < (at.head + 1) * side.each; ++h) {
    const Storage* y = row_of<Storage>(side.x, at.first, h, at.token, at.feature);
    const Storage* y_grad = row_of<Storage>(side.grad, at.first, h, at.token, at.feature);
    Storage* x_grad =
        const_cast<Storage*>(row_of<Storage>(side.out, at.first, h, at.token, at.feature));
    LIEROPE_ROLLED
    for (int64_t b = at.first; b < at.last; b += kAhead * at.step) {
      Run<Storage, N, wide> grads[kAhead], values[kAhead];
      LIEROPE_EACH(u, 0, kAhead) {
        if (b + u * at.step < at.last) {
          grads[u].load(y_grad);
          values[u].load(y);
        }
        y_grad += at.step * side.grad.stride_batch;
        y += at.step * side.x.stride_batch;
      }
      LIEROPE_EACH(u, 0, kAhead) {
        if (b + u * at.step < at.last) {
          T grad[N], value[N], out[N];
          widen_run(grads[u], grad);
          turn<N>(r, static_cast<const T*>(grad), out);
          store_row<N, wide>(static_cast<const T*>(out), x_grad);
          widen_run(values[u], value);
          LIEROPE_EACH(i, 0, N) LIEROPE_EACH(j, i + 1, N) {
            T& sum = w[SkewTriangle<T, N>::index(i, j)];
            sum += grad[i] * value[j];
            sum -= value[i] * grad[j];
          }
        }
        x_grad += at.step * side.out.stride_batch;
      }
    }
  }
}

// As kThreadOccupancy, for kernels that hold several rows too.
template <class T, int N>
inline constexpr int kTurningOccupancy = N <= 4 && sizeof(T) == 4 ? 4 : 2;

template <class T, int N>
struct TurnBySides {
  const TurnedSides& sides;
  const TurnedPlace& place;
  const T* r;

  template <class Storage, bool wide>
  __device__ __forceinline__ void run() const {
    turn_rows<N, wide, Storage>(sides.q, place, r);
    turn_rows<N, wide, Storage>(sides.k, place, r);
  }
};
template <class T, int N>
struct TurnBackBySides {
  const TurnedSides& sides;
  const TurnedPlace& place;
  const T* r;
  T* w;

  template <class Storage, bool wide>
  __device__ __forceinline__ void run() const {
    turn_rows_back<N, wide, Storage>(sides.q, place, r, w);
    turn_rows_back<N, wide, Storage>(sides.k, place, r, w);
  }
};

template <class T, int N>
__global__ void __launch_bounds__(kMatrixThreads, kTurningOccupancy<T, N>)
    lie_rotate_threads(Lie lie, TurnedSides sides, LieThreads plan) {
  const LieThread at(plan, lie);
  const int64_t item = at.first + at.point;
  if (!at.has(plan, lie, item)) return;
  T a[kTriangleRoom<N>], r[N * N];
  contract<N>(generators_of<T>(lie, at.head, at.block), lie.heads * lie.blocks * kTriangle<N>,
              position_of<T>(lie, item), lie.dims, T(1), a);
  thread_exponential<N>(static_cast<const T*>(a), r);
  const TurnedPlace place(sides, LieItem(item, lie.points, plan.per_point), at.head, at.block * N,
                          int(blockIdx.y), int(gridDim.y));
  with_rows<T>(sides, TurnBySides<T, N>{sides, place, r});
}

// Room of a thread for its W or 2 Abar: an odd number, so that neighbours meet different banks.
template <int N>
inline constexpr int kTriangleSlot = kTriangle<N> | 1;

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
__global__ void __launch_bounds__(kMatrixThreads, 2)
    lie_rotate_backward_threads(Lie lie, TurnedSides sides, LieThreads plan, LieSums<T> sums) {
  LIEROPE_DYNAMIC_SHARED(T, slots);
  const LieThread at(plan, lie);
  LIEROPE_ROLLED
  for (int64_t group = at.first; group < at.last; group += plan.points) {
    const int64_t item = group + at.point;
    const bool mine = at.has(plan, lie, item);
    T w[kTriangleRoom<N>];
    LIEROPE_EACH(t, 0, kTriangle<N>) w[t] = 0;
    if (mine) {
      T a[kTriangleRoom<N>];
      contract<N>(generators_of<T>(lie, at.head, at.block), lie.heads * lie.blocks * kTriangle<N>,
                  position_of<T>(lie, item), lie.dims, T(-1), a);
      T r[N * N];
      thread_exponential<N>(static_cast<const T*>(a), r);
      const TurnedPlace place(sides, LieItem(item, lie.points, plan.per_point), at.head,
                              at.block * N, at.slice, plan.slices);
      with_rows<T>(sides, TurnBackBySides<T, N>{sides, place, r, w});
    }
    add_slices<N>(plan, at, slots, w);
    if (mine && at.slice == 0) {
      // Contracted once more: kept, A would take registers from the rows that are turned.
      T a[kTriangleRoom<N>];
      contract<N>(generators_of<T>(lie, at.head, at.block), lie.heads * lie.blocks * kTriangle<N>,
                  position_of<T>(lie, item), lie.dims, T(-1), a);
      thread_adjoint<N>(static_cast<const T*>(a), w);
      write_position_gradient<N>(lie, sums, at, item, static_cast<const T*>(w));
      LIEROPE_EACH(t, 0, kTriangle<N>) slots[at.local * kTriangleSlot<N> + t] = w[t];
    }
    __syncthreads();
    add_generator_gradients<N>(plan, lie, sums, at, group, static_cast<const T*>(slots),
                               kTriangleSlot<N>);
    __syncthreads();
  }
}

}  // namespace lierope::cuda
