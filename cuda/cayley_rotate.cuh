// cayley_rotate: of narrow bands an elimination once a head, then a solve by a thread a token.
#pragma once
#include "../csrc/params/cayley.h"
#include "cayley_product.cuh"

namespace lierope::cuda {

constexpr int kFactorThreads = 256;

// Factors of I + S within the band stand in the workspace, (s_heads, n, 2 width + 1) as math::Band:
// unit lower L, upper U with reciprocal pivots. Behind them are the tokens of blocks whose tokens
// do not fit in shared memory.
struct CayleyBand {
  int n, width;
  int threads;  // tokens of a block
  bool factor_in_shared, solve_in_shared;
  unsigned blocks;
  int64_t tiles, factors;  // numbers
  Divisor tiles_of_head, heads, heads_of_factor;

  __host__ __device__ int stride() const { return 2 * width + 1; }
  __host__ __device__ int64_t head_factors() const { return int64_t(n) * stride(); }
  // A token's features lie a token stride apart: threads of a warp, and features, meet 32 banks.
  __host__ __device__ int token_stride() const { return threads + 1; }
  __host__ __device__ int64_t tile_numbers() const { return int64_t(n) * token_stride(); }
};

inline CayleyBand cayley_band(const CayleyRotateParams& p, const Launch& device) {
  const int64_t bytes = p.dtype == DType::f64 ? 8 : 4;
  CayleyBand band{};
  band.n = int(p.n);
  band.width = int(p.bandwidth < p.n ? p.bandwidth : p.n - 1);
  band.factors = p.s_heads * band.head_factors();
  band.factor_in_shared = band.head_factors() * bytes <= device.shared_bytes;
  band.threads = 128;
  while (band.threads > 32 && band.tile_numbers() * bytes > device.shared_bytes / 2)
    band.threads /= 2;
  band.solve_in_shared = band.tile_numbers() * bytes <= device.shared_bytes;
  const int64_t tiles = (p.tokens + band.threads - 1) / band.threads;
  band.tiles = p.batch * p.heads * tiles;
  band.tiles_of_head = divisor(tiles > 0 ? tiles : 1);
  band.heads = divisor(p.heads > 0 ? p.heads : 1);
  band.heads_of_factor = divisor(p.heads > 0 ? p.heads / p.s_heads : 1);
  const int64_t most = band.solve_in_shared ? (int64_t(1) << 31) - 1 : 2 * device.multiprocessors;
  band.blocks = unsigned(band.tiles < most ? band.tiles : most);
  return band;
}

template <class T>
__global__ void __launch_bounds__(kFactorThreads)
    factor_kernel(CayleyRotateParams p, CayleyBand band, T* factors) {
  LIEROPE_DYNAMIC_SHARED(T, shared);
  T* const to = factors + blockIdx.x * band.head_factors();
  T* const a = band.factor_in_shared ? shared : to;
  const T* const s = static_cast<const T*>(p.s) + blockIdx.x * p.n * p.n;
  const T sign = p.transpose ? T(-1) : T(1);
  const int n = band.n, width = band.width, stride = band.stride();
  const int thread = int(threadIdx.x);
  for (int64_t e = thread; e < band.head_factors(); e += kFactorThreads) {
    const int64_t i = e / stride, j = i + e % stride - width;
    const bool inside = j >= 0 && j < n;
    a[e] = !inside ? T(0) : i == j ? T(1) : i < j ? sign * s[i * n + j] : -sign * s[j * n + i];
  }
  __syncthreads();
  for (int k = 0; k < n; ++k) {
    // Entry (i, j) of the band is a[i * stride + j - i + width].
    T* const pivot = a + int64_t(k) * stride + width;
    const int count = min(width, n - 1 - k);
    const T reciprocal = T(1) / *pivot;
    for (int e = thread; e < count * count; e += kFactorThreads) {
      const int i = 1 + e / count, j = 1 + e % count;
      T* const of_row = pivot + int64_t(i) * (stride - 1);
      of_row[j] -= of_row[0] * reciprocal * pivot[j];
    }
    __syncthreads();
    for (int i = 1 + thread; i <= count; i += kFactorThreads)
      pivot[int64_t(i) * (stride - 1)] *= reciprocal;
    if (thread == 0) *pivot = reciprocal;
    __syncthreads();
  }
  for (int64_t e = thread; band.factor_in_shared && e < band.head_factors(); e += kFactorThreads)
    to[e] = a[e];
}

// Solves (I + S) z = x for the token of this thread, whose feature i is z[i * step].
template <class T>
__device__ __forceinline__ void solve_token(const CayleyBand& band, const T* factors, T* z) {
  const int n = band.n, width = band.width, stride = band.stride(), step = band.token_stride();
  for (int i = 1; i < n; ++i) {
    const T* const of_row = factors + int64_t(i) * stride + width - i;
    T sum = z[int64_t(i) * step];
    for (int j = i > width ? i - width : 0; j < i; ++j) sum -= of_row[j] * z[int64_t(j) * step];
    z[int64_t(i) * step] = sum;
  }
  for (int i = n - 1; i >= 0; --i) {
    const T* const of_row = factors + int64_t(i) * stride + width - i;
    T sum = z[int64_t(i) * step];
    const int end = min(i + width + 1, n);
    for (int j = i + 1; j < end; ++j) sum -= of_row[j] * z[int64_t(j) * step];
    z[int64_t(i) * step] = sum * of_row[i];
  }
}

template <class Storage>
__global__ void __launch_bounds__(128)
    cayley_rotate_kernel(CayleyRotateParams p, CayleyBand band, const Compute<Storage>* factors,
                         Compute<Storage>* rooms) {
  using T = Compute<Storage>;
  LIEROPE_DYNAMIC_SHARED(T, shared);
  T* const z = rooms == nullptr ? shared : rooms + blockIdx.x * band.tile_numbers();
  const int n = band.n, thread = int(threadIdx.x), step = band.token_stride();
  for (int64_t tile = blockIdx.x; tile < band.tiles; tile += gridDim.x) {
    const int64_t row = band.tiles_of_head.quotient(tile), batch = band.heads.quotient(row);
    const int64_t head = row - batch * p.heads;
    const int64_t first = (tile - row * band.tiles_of_head.by) * band.threads;
    const int tokens = int(p.tokens - first < band.threads ? p.tokens - first : band.threads);
    const Storage* const x = static_cast<const Storage*>(p.x.data) + batch * p.x.stride_batch +
                             head * p.x.stride_head + first * p.x.stride_token;
    Storage* const y = static_cast<Storage*>(p.out) + (row * p.tokens + first) * n;
    for (int e = thread; e < tokens * n; e += band.threads) {
      const int t = e / n, i = e - t * n;
      z[int64_t(i) * step + t] = widen(x[t * p.x.stride_token + i]);
    }
    __syncthreads();
    if (thread < tokens)
      solve_token(band, factors + band.heads_of_factor.quotient(head) * band.head_factors(),
                  z + thread);
    __syncthreads();
    for (int e = thread; e < tokens * n; e += band.threads) {
      const int t = e / n, i = e - t * n;
      y[e] = narrow<Storage>(2 * z[int64_t(i) * step + t] - widen(x[t * p.x.stride_token + i]));
    }
    __syncthreads();
  }
}

int64_t cayley_rotate_workspace(const CayleyRotateParams& p, const Launch& device) {
  if (p.n == 0) return 0;
  if (prefers_product(p, device)) return cayley_product(p, device).workspace_bytes();
  const CayleyBand band = cayley_band(p, device);
  const int64_t rooms = band.solve_in_shared ? 0 : band.tile_numbers() * band.blocks;
  return (band.factors + rooms) * (p.dtype == DType::f64 ? 8 : 4);
}

void cayley_rotate(const CayleyRotateParams& p, const Launch& launch) {
  if (p.n == 0 || p.batch * p.heads * p.tokens == 0) return;
  if (prefers_product(p, launch)) return run_cayley_product(p, launch);
  const CayleyBand band = cayley_band(p, launch);
  with_storage(p.dtype, [&](auto element) {
    using Storage = decltype(element);
    using T = Compute<Storage>;
    T* const factors = static_cast<T*>(launch.workspace);
    T* const rooms = band.solve_in_shared ? nullptr : factors + band.factors;
    const int64_t bytes = int64_t(sizeof(T));
    LIEROPE_LAUNCH(factor_kernel<T>, unsigned(p.s_heads), kFactorThreads,
                   band.factor_in_shared ? band.head_factors() * bytes : 0, launch, p, band,
                   factors);
    LIEROPE_LAUNCH(cayley_rotate_kernel<Storage>, band.blocks, unsigned(band.threads),
                   band.solve_in_shared ? band.tile_numbers() * bytes : 0, launch, p, band,
                   static_cast<const T*>(factors), rooms);
  });
}

}  // namespace lierope::cuda
