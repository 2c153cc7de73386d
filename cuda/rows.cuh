// Rows of features of q or k: where each lies, runs of elements as wide accesses, plain copies.
#pragma once
#include "../csrc/params/tokens.h"
#include "storage.cuh"

namespace lierope::cuda {

// Addresses in a strided (B, H, N, D) tensor whose last stride is 1.
template <class Storage>
struct Rows {
  Storage* data;
  int64_t batch, head, token;  // strides

  __device__ __forceinline__ Storage* at(int64_t b, int64_t h, int64_t n) const {
    return data + b * batch + h * head + n * token;
  }
};
template <class Storage>
__host__ __device__ __forceinline__ Rows<const Storage> reads(const View& view) {
  return {static_cast<const Storage*>(view.data), view.stride_batch, view.stride_head,
          view.stride_token};
}
template <class Storage>
__host__ __device__ __forceinline__ Rows<Storage> writes(const Tokens& shape, void* out,
                                                         int64_t heads) {
  const int64_t d = shape.head_dim, batch = heads * shape.tokens * d;
  Storage* const data = static_cast<Storage*>(out);
  if (shape.heads_side_by_side) return {data, batch, d, heads * d};
  return {data, batch, shape.tokens * d, d};
}

// Whether every row starts at a multiple of `bytes` (a power of two up to 16).
inline bool is_aligned(const void* p, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(p) % uintptr_t(bytes) == 0;
}
inline bool rows_aligned(const View& view, int64_t element, int64_t bytes) {
  return is_aligned(view.data, bytes) && view.stride_batch * element % bytes == 0 &&
         view.stride_head * element % bytes == 0 && view.stride_token * element % bytes == 0;
}
// Whether all rows that an operator reads and writes do.
template <class Params>
bool all_rows_aligned(const Params& p, int64_t element, int64_t bytes) {
  const bool has_k = p.shape.k_heads > 0;
  const auto both = [&](const View& q, const View& k) {
    return rows_aligned(q, element, bytes) && (!has_k || rows_aligned(k, element, bytes));
  };
  bool aligned = p.shape.head_dim * element % bytes == 0 && is_aligned(p.q_out, bytes) &&
                 (!has_k || is_aligned(p.k_out, bytes));
  if constexpr (requires { p.q; }) aligned = aligned && both(p.q, p.k);
  if constexpr (requires { p.q_rotated; }) aligned = aligned && both(p.q_rotated, p.k_rotated);
  if constexpr (requires { p.q_grad; }) aligned = aligned && both(p.q_grad, p.k_grad);
  return aligned;
}

// What sample b uses of a ([B,] rotation heads, M, each) tensor.
__device__ __forceinline__ int64_t offset_of_sample(const Tokens& shape, int64_t each, int64_t b) {
  return shape.per_sample ? b * shape.rotation_heads * (shape.tokens - shape.prefix) * each : 0;
}

template <int bytes>
struct Word;
template <>
struct Word<16> {
  using type = uint4;
};
template <>
struct Word<8> {
  using type = uint2;
};
template <>
struct Word<4> {
  using type = unsigned;
};
template <>
struct Word<2> {
  using type = uint16_t;
};

// `count` elements that lie side by side: in accesses of up to 16 bytes, to which they must be
// aligned, or one by one.
template <class Storage, int count, bool wide>
struct Run {
  static constexpr int kBytes = int(sizeof(Storage)) * count;
  static constexpr int kAccess = kBytes % 16 == 0  ? 16
                                 : kBytes % 8 == 0 ? 8
                                 : kBytes % 4 == 0 ? 4
                                                   : 2;
  static_assert(kBytes % kAccess == 0);
  Storage v[count];

  __device__ __forceinline__ void load(const Storage* p) {
    if constexpr (wide) {
      using W = typename Word<kAccess>::type;
      W words[kBytes / kAccess];
      LIEROPE_UNROLL
      for (int i = 0; i < kBytes / kAccess; ++i) words[i] = reinterpret_cast<const W*>(p)[i];
      __builtin_memcpy(v, words, kBytes);
    } else {
      LIEROPE_UNROLL
      for (int i = 0; i < count; ++i) v[i] = p[i];
    }
  }
  __device__ __forceinline__ void store(Storage* p) const {
    if constexpr (wide) {
      constexpr int each = kAccess / int(sizeof(Storage));
      LIEROPE_UNROLL
      for (int i = 0; i < count; i += each) store_at_once<kAccess>(p + i, v + i);
    } else {
      LIEROPE_UNROLL
      for (int i = 0; i < count; ++i) p[i] = v[i];
    }
  }
};

// Copies the features that no rotation touches: from `rotated` on, all of them in the prefix.
template <class Storage>
__global__ void copy_unrotated(Rows<const Storage> x, Rows<Storage> y, Tokens shape, int64_t heads,
                               int64_t rotated) {
  const int64_t rest = shape.head_dim - rotated;
  const int64_t of_prefix = shape.prefix * shape.head_dim;
  const int64_t each = of_prefix + (shape.tokens - shape.prefix) * rest;
  const int64_t count = shape.batch * heads * each;
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    const int64_t sequence = i / each, at = i % each;
    const bool prefix = at < of_prefix;
    const int64_t n = prefix ? at / shape.head_dim : shape.prefix + (at - of_prefix) / rest;
    const int64_t d = prefix ? at % shape.head_dim : rotated + (at - of_prefix) % rest;
    const int64_t b = sequence / heads, h = sequence % heads;
    y.at(b, h, n)[d] = x.at(b, h, n)[d];
  }
}
template <class Storage>
void launch_copy_unrotated(const View& view, void* out, const Tokens& shape, int64_t heads,
                           int64_t rotated, const Launch& launch) {
  const int64_t rest = shape.head_dim - rotated;
  const int64_t each = shape.prefix * shape.head_dim + (shape.tokens - shape.prefix) * rest;
  LIEROPE_LAUNCH(copy_unrotated<Storage>, blocks_for(shape.batch * heads * each, 256), 256, 0,
                 launch, reads<Storage>(view), writes<Storage>(shape, out, heads), shape, heads,
                 rotated);
}

}  // namespace lierope::cuda
