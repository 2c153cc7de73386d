// Products that a thread keeps until they are used: in registers, or in global memory where those
// are too few.
#pragma once
#include "block_tiles.cuh"

namespace lierope::cuda {

// Half of a matrix that waits for its use.
template <class T, int TS, bool in_workspace = kInWorkspace<T, TS>>
class Kept {
 public:
  __device__ __forceinline__ Kept(const Tiles<T, TS>&, T*, int) {}
  __device__ __forceinline__ T operator[](int e) const { return half_.v[e]; }
  __device__ __forceinline__ T operator()(int e) const { return half_.v[e]; }
  __device__ __forceinline__ void operator=(const HalfTile<T, TS>& half) { half_ = half; }
  template <class F>
  __device__ __forceinline__ void set(F f) {
    each_entry<T, TS>([&](int e) { half_.v[e] = f(e); });
  }

 private:
  HalfTile<T, TS> half_;
};
template <class T, int TS>
class Kept<T, TS, true> {
 public:
  __device__ __forceinline__ Kept(const Tiles<T, TS>& at, T* room, int place)
      : mine_(room + place * Tiles<T, TS>::kHalf * at.threads + at.thread), step_(at.threads) {}
  __device__ __forceinline__ T operator[](int e) const { return mine_[e * step_]; }
  __device__ __forceinline__ T operator()(int e) const { return mine_[e * step_]; }
  __device__ __forceinline__ void operator=(const HalfTile<T, TS>& half) {
    LIEROPE_UNROLL
    for (int e = 0; e < Tiles<T, TS>::kHalf; ++e) mine_[e * step_] = half.v[e];
  }
  template <class F>
  __device__ __forceinline__ void set(F f) {
    each_entry<T, TS>([&](int e) { mine_[e * step_] = f(e); });
  }

 private:
  T* mine_;
  int step_;
};
// Places: powers but the last, C, S, the result of a product, W.
inline constexpr int kKeptW = 6, kKeptHalves = 7;

// A full product that waits until its factors may be overwritten.
template <class T, int TS, bool in_workspace = kInWorkspace<T, TS>>
class KeptFull {
 public:
  __device__ __forceinline__ KeptFull(const Tiles<T, TS>& at, T*) : at_(at) {}
  __device__ __forceinline__ void multiply(const T* x, const T* y, int rows) {
    full_product(at_, x, y, rows, 0, v_);
  }
  // f(r, line) for every row of the tile; line may be changed.
  template <class F>
  __device__ __forceinline__ void each_row(F f) {
    LIEROPE_UNROLL
    for (int r = 0; r < TS; ++r) f(r, v_[r]);
  }

 private:
  const Tiles<T, TS>& at_;
  T v_[TS][TS];
};
template <class T, int TS>
class KeptFull<T, TS, true> {
 public:
  __device__ __forceinline__ KeptFull(const Tiles<T, TS>& at, T* room)
      : at_(at), mine_(room + at.thread) {}
  __device__ __forceinline__ void multiply(const T* x, const T* y, int rows) {
    LIEROPE_ROLLED
    for (int first = 0; first < TS; first += 4) {
      T sum[4][TS];
      full_product(at_, x, y, rows, first, sum);
      LIEROPE_UNROLL
      for (int e = 0; e < 4 * TS; ++e) mine_[(first * TS + e) * at_.threads] = sum[e / TS][e % TS];
    }
  }
  template <class F>
  __device__ __forceinline__ void each_row(F f) {
    LIEROPE_ROLLED
    for (int r = 0; r < TS; ++r) {
      T line[TS];
      LIEROPE_UNROLL
      for (int c = 0; c < TS; ++c) line[c] = mine_[(r * TS + c) * at_.threads];
      f(r, line);
    }
  }

 private:
  const Tiles<T, TS>& at_;
  T* mine_;
};

}  // namespace lierope::cuda
