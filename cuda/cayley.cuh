// cayley by elimination in place and its adjoint: one CUDA block a matrix.
#pragma once
#include "../csrc/params/cayley.h"
#include "portable.cuh"

namespace lierope::cuda {

constexpr int kCayleySide = 16;  // threads of a block: a square

// Where the block's buffers are, in numbers of T: shared memory, or its part of the workspace when
// they do not fit.
struct CayleyRooms {
  int64_t numbers;
  unsigned blocks;
  bool in_workspace;

  CayleyRooms(int64_t count, int64_t numbers_, int64_t number_bytes, const Launch& device)
      : numbers(numbers_),
        blocks(unsigned(count)),
        in_workspace(numbers_ * number_bytes > device.shared_bytes),
        bytes_(numbers_ * number_bytes) {
    const int64_t most = in_workspace ? 2 * device.multiprocessors : (int64_t(1) << 31) - 1;
    if (count > most) blocks = unsigned(most);
  }
  int64_t shared_bytes() const { return in_workspace ? 0 : bytes_; }
  int64_t workspace_bytes() const { return in_workspace ? bytes_ * blocks : 0; }
  template <class T>
  T* in(const Launch& launch) const {
    return in_workspace ? static_cast<T*>(launch.workspace) : nullptr;
  }

 private:
  int64_t bytes_;
};

// Calls f(i, j) for the entries of a matrix that this thread holds.
template <class F>
__device__ __forceinline__ void for_entries(int n, F&& f) {
  for (int i = int(threadIdx.y); i < n; i += kCayleySide)
    for (int j = int(threadIdx.x); j < n; j += kCayleySide) f(i, j);
}

// Gauss-Jordan sweeps turn D = S into D = (I + S)^-1 - I, so that P = I + 2 D: small S are kept,
// which 2 (I + S)^-1 - I would round away. Pivots are at least 1: see math/cayley.h.
__device__ __forceinline__ void sweep(double* d, double* row, double* column, int n) {
  const int thread = int(threadIdx.y) * kCayleySide + int(threadIdx.x);
  for (int k = 0; k < n; ++k) {
    const double reciprocal = 1 / (1 + d[int64_t(k) * n + k]);
    for (int i = thread; i < n; i += kCayleySide * kCayleySide) {
      row[i] = d[int64_t(k) * n + i] * reciprocal;
      column[i] = d[int64_t(i) * n + k];
    }
    __syncthreads();
    for_entries(n, [&](int i, int j) {
      double& entry = d[int64_t(i) * n + j];
      if (i == k)
        entry = j == k ? -row[k] : row[j];
      else
        entry = j == k ? -column[i] * reciprocal : entry - column[i] * row[j];
    });
    __syncthreads();
  }
}

// Floats are eliminated as doubles: without pivoting errors grow with |S|. Entries of S further
// than `width` from the diagonal count as zero; `sign` -1 gives the P of -S, which is the
// transpose.
template <class T>
__global__ void __launch_bounds__(kCayleySide* kCayleySide, 2)
    cayley_kernel(CayleyParams p, int width, double sign, double* rooms) {
  const int n = int(p.n);
  LIEROPE_DYNAMIC_SHARED(double, shared);
  double* const d = rooms == nullptr ? shared : rooms + blockIdx.x * (p.n * p.n + 2 * p.n);
  double* const row = d + p.n * p.n;
  for (int64_t matrix = blockIdx.x; matrix < p.count; matrix += gridDim.x) {
    const T* const s = static_cast<const T*>(p.s) + matrix * p.n * p.n;
    T* const out = static_cast<T*>(p.p) + matrix * p.n * p.n;
    int bad = 0;
    for_entries(n, [&](int i, int j) {
      double value = 0;
      if (i < j && j - i <= width) value = sign * double(s[int64_t(i) * n + j]);
      if (j < i && i - j <= width) value = -sign * double(s[int64_t(j) * n + i]);
      bad |= !(value - value == 0);
      d[int64_t(i) * n + j] = value;
    });
    bad = __syncthreads_or(bad);
    if (!bad) sweep(d, row, row + n, n);
    for_entries(n, [&](int i, int j) {
      const double entry = bad ? __longlong_as_double(0x7ff8000000000000ll) : d[int64_t(i) * n + j];
      out[int64_t(i) * n + j] = T(double(i == j) + 2 * entry);
    });
    __syncthreads();
  }
}

// put(i, j, sum over k of x_ki y_kj): a thread sums 16 entries at a time, whose rows and columns
// lie a side apart.
template <class T, class F>
__device__ __forceinline__ void transposed_product(const T* x, const T* y, int n, F&& put) {
  constexpr int kEach = 4;
  for (int i0 = int(threadIdx.y); i0 < n; i0 += kEach * kCayleySide) {
    for (int j0 = int(threadIdx.x); j0 < n; j0 += kEach * kCayleySide) {
      T sums[kEach][kEach] = {};
      LIEROPE_ROLLED
      for (int k = 0; k < n; ++k) {
        const T *const of_x = x + int64_t(k) * n, *const of_y = y + int64_t(k) * n;
        T a[kEach], b[kEach];
        LIEROPE_UNROLL
        for (int e = 0; e < kEach; ++e) {  // beyond the matrix: any entry
          a[e] = of_x[min(i0 + e * kCayleySide, n - 1)];
          b[e] = of_y[min(j0 + e * kCayleySide, n - 1)];
        }
        LIEROPE_UNROLL
        for (int r = 0; r < kEach; ++r) {
          LIEROPE_UNROLL
          for (int c = 0; c < kEach; ++c) sums[r][c] += a[r] * b[c];
        }
      }
      LIEROPE_UNROLL
      for (int r = 0; r < kEach; ++r) {
        LIEROPE_UNROLL
        for (int c = 0; c < kEach; ++c) {
          const int i = i0 + r * kCayleySide, j = j0 + c * kCayleySide;
          if (i < n && j < n) put(i, j, sums[r][c]);
        }
      }
    }
  }
}

// With Q = I + P: Sbar = skew(-Q^T G Q^T / 2), since dP = -(1/2) Q dS Q. Out: 2 Sbar above the
// diagonal.
template <class T>
__global__ void __launch_bounds__(kCayleySide* kCayleySide)
    cayley_backward_kernel(CayleyBackwardParams p, T* rooms) {
  const int n = int(p.n);
  const int64_t size = p.n * p.n;
  LIEROPE_DYNAMIC_SHARED(T, shared);
  T* const q = rooms == nullptr ? shared : rooms + blockIdx.x * 3 * size;
  T *const g = q + size, *const first = g + size;
  for (int64_t matrix = blockIdx.x; matrix < p.count; matrix += gridDim.x) {
    const T* const from = static_cast<const T*>(p.p) + matrix * size;
    const T* const grad = static_cast<const T*>(p.grad) + matrix * size;
    T* const out = static_cast<T*>(p.out) + matrix * size;
    for_entries(n, [&](int i, int j) {
      const int64_t at = int64_t(i) * n + j;
      q[at] = from[at] + T(i == j);
      g[at] = grad[at];
    });
    __syncthreads();
    transposed_product(q, g, n, [&](int i, int j, T x) { first[int64_t(j) * n + i] = x; });
    __syncthreads();
    for_entries(
        n, [&](int i, int j) { q[int64_t(j) * n + i] = from[int64_t(i) * n + j] + T(i == j); });
    __syncthreads();
    transposed_product(first, q, n, [&](int i, int j, T x) { g[int64_t(i) * n + j] = x; });
    __syncthreads();
    for_entries(n, [&](int i, int j) {
      const int64_t at = int64_t(i) * n + j;
      out[at] = j > i ? (g[int64_t(j) * n + i] - g[at]) * T(0.5) : T(0);
    });
    __syncthreads();
  }
}

inline CayleyRooms cayley_rooms(const CayleyParams& p, const Launch& device) {
  return {p.count, p.n * p.n + 2 * p.n, int64_t(sizeof(double)), device};
}
inline CayleyRooms cayley_rooms(const CayleyBackwardParams& p, const Launch& device) {
  return {p.count, 3 * p.n * p.n, p.is_double ? 8 : 4, device};
}

int64_t cayley_workspace(const CayleyParams& p, const Launch& device) {
  return cayley_rooms(p, device).workspace_bytes();
}
int64_t cayley_backward_workspace(const CayleyBackwardParams& p, const Launch& device) {
  return cayley_rooms(p, device).workspace_bytes();
}

inline void launch_cayley(const CayleyParams& p, int width, double sign, const Launch& launch) {
  const CayleyRooms rooms = cayley_rooms(p, launch);
  const auto kernel = p.is_double ? cayley_kernel<double> : cayley_kernel<float>;
  LIEROPE_LAUNCH(kernel, rooms.blocks, dim3(kCayleySide, kCayleySide), rooms.shared_bytes(), launch,
                 p, width, sign, rooms.in<double>(launch));
}
void cayley(const CayleyParams& p, const Launch& launch) { launch_cayley(p, int(p.n), 1, launch); }

template <class T>
void launch_cayley_backward(const CayleyBackwardParams& p, const Launch& launch) {
  const CayleyRooms rooms = cayley_rooms(p, launch);
  LIEROPE_LAUNCH(cayley_backward_kernel<T>, rooms.blocks, dim3(kCayleySide, kCayleySide),
                 rooms.shared_bytes(), launch, p, rooms.in<T>(launch));
}
void cayley_backward(const CayleyBackwardParams& p, const Launch& launch) {
  p.is_double ? launch_cayley_backward<double>(p, launch)
              : launch_cayley_backward<float>(p, launch);
}

}  // namespace lierope::cuda
