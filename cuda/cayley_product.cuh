// cayley_rotate of wide bands: P is formed once a head and multiplies every token.
#pragma once
#include "cayley.cuh"
#include "divisor.cuh"
#include "partial_sums.cuh"
#include "storage.cuh"

namespace lierope::cuda {

constexpr int kProductEach = 4;                             // entries a thread has, either way
constexpr int kProductTokens = kProductEach * kCayleySide;  // of a tile

// P^T stands in the workspace, (s_heads, n, n) in the type of arithmetic, then what forming it
// needs. A block keeps one head's P^T and multiplies the same tokens of a slice of the batch.
struct CayleyProduct {
  CayleyParams form;
  CayleyRooms rooms;
  int64_t p_bytes = 0, shared_bytes = 0;
  int64_t tiles = 0, batch_of_slice = 0;
  unsigned slices = 0;
  Divisor tiles_of_head{}, heads_of_factor{};

  int64_t workspace_bytes() const { return p_bytes + rooms.workspace_bytes(); }
};

inline int64_t product_shared_bytes(const CayleyRotateParams& p) {
  return (p.n * p.n + p.n * (kProductTokens + 1)) * (p.dtype == DType::f64 ? 8 : 4);
}

// A solve reads shared memory twice for each of 4 n w multiply-adds, a product half for each of
// n^2.
inline bool prefers_product(const CayleyRotateParams& p, const Launch& device) {
  return 8 * p.bandwidth > p.n && product_shared_bytes(p) <= device.shared_bytes;
}

inline CayleyProduct cayley_product(const CayleyRotateParams& p, const Launch& device) {
  const bool is_double = p.dtype == DType::f64;
  const CayleyParams form{p.s, nullptr, p.s_heads, p.n, is_double};
  CayleyProduct plan{form, cayley_rooms(form, device)};
  plan.p_bytes = (p.s_heads * p.n * p.n * (is_double ? 8 : 4) + 255) / 256 * 256;
  plan.shared_bytes = product_shared_bytes(p);
  const int64_t tiles = (p.tokens + kProductTokens - 1) / kProductTokens;
  plan.tiles = p.heads * tiles;
  plan.tiles_of_head = divisor(tiles > 0 ? tiles : 1);
  plan.heads_of_factor = divisor(p.heads > 0 ? p.heads / p.s_heads : 1);
  const int64_t slices = slices_for(p.batch, plan.tiles, 4, device);
  plan.batch_of_slice = (p.batch + slices - 1) / slices;
  plan.slices =
      unsigned(p.batch > 0 ? (p.batch + plan.batch_of_slice - 1) / plan.batch_of_slice : 0);
  return plan;
}

template <class Storage>
__global__ void __launch_bounds__(kCayleySide* kCayleySide, 2)
    cayley_product_kernel(CayleyRotateParams p, CayleyProduct plan,
                          const Compute<Storage>* transposed) {
  using T = Compute<Storage>;
  constexpr int kThreads = kCayleySide * kCayleySide, kStep = kProductTokens + 1;
  LIEROPE_DYNAMIC_SHARED(T, shared);
  const int n = int(p.n), thread = int(threadIdx.y) * kCayleySide + int(threadIdx.x);
  T *const pt = shared, *const x = shared + n * n;  // P^T by rows; features by tokens
  const int64_t head = plan.tiles_of_head.quotient(blockIdx.x);
  const int64_t first = (blockIdx.x - head * plan.tiles_of_head.by) * kProductTokens;
  const int tokens = int(p.tokens - first < kProductTokens ? p.tokens - first : kProductTokens);
  const T* const from = transposed + plan.heads_of_factor.quotient(head) * n * n;
  for (int e = thread; e < n * n; e += kThreads) pt[e] = from[e];

  const int64_t begin = blockIdx.y * plan.batch_of_slice;
  const int64_t end = begin + plan.batch_of_slice < p.batch ? begin + plan.batch_of_slice : p.batch;
  for (int64_t b = begin; b < end; ++b) {
    const Storage* const rows = static_cast<const Storage*>(p.x.data) + b * p.x.stride_batch +
                                head * p.x.stride_head + first * p.x.stride_token;
    Storage* const y = static_cast<Storage*>(p.out) + ((b * p.heads + head) * p.tokens + first) * n;
    for (int e = thread; e < tokens * n; e += kThreads) {
      const int t = e / n, i = e - t * n;
      x[i * kStep + t] = widen(rows[t * p.x.stride_token + i]);
    }
    __syncthreads();
    for (int i0 = int(threadIdx.x); i0 < n; i0 += kProductTokens) {
      T sums[kProductEach][kProductEach] = {};
      LIEROPE_ROLLED
      for (int k = 0; k < n; ++k) {
        T a[kProductEach], c[kProductEach];
        LIEROPE_UNROLL
        for (int e = 0; e < kProductEach; ++e) {  // beyond the tokens or P: any entry
          a[e] = x[k * kStep + min(int(threadIdx.y) + e * kCayleySide, tokens - 1)];
          c[e] = pt[k * n + min(i0 + e * kCayleySide, n - 1)];
        }
        LIEROPE_UNROLL
        for (int r = 0; r < kProductEach; ++r) {
          LIEROPE_UNROLL
          for (int e = 0; e < kProductEach; ++e) sums[r][e] += a[r] * c[e];
        }
      }
      LIEROPE_UNROLL
      for (int r = 0; r < kProductEach; ++r) {
        const int t = int(threadIdx.y) + r * kCayleySide;
        LIEROPE_UNROLL
        for (int e = 0; e < kProductEach; ++e) {
          const int i = i0 + e * kCayleySide;
          if (t < tokens && i < n) y[int64_t(t) * n + i] = narrow<Storage>(sums[r][e]);
        }
      }
    }
    __syncthreads();
  }
}

inline void run_cayley_product(const CayleyRotateParams& p, const Launch& launch) {
  const CayleyProduct plan = cayley_product(p, launch);
  CayleyParams form = plan.form;
  form.p = launch.workspace;
  Launch after = launch;
  after.workspace = static_cast<char*>(launch.workspace) + plan.p_bytes;
  launch_cayley(form, int(p.bandwidth), p.transpose ? 1 : -1, after);
  with_storage(p.dtype, [&](auto element) {
    using Storage = decltype(element);
    LIEROPE_LAUNCH(cayley_product_kernel<Storage>, dim3(unsigned(plan.tiles), plan.slices),
                   dim3(kCayleySide, kCayleySide), plan.shared_bytes, launch, p, plan,
                   static_cast<const Compute<Storage>*>(launch.workspace));
  });
}

}  // namespace lierope::cuda
