// exp(A) of a skew matrix that a square of threads shares, and its adjoint, in two buffers.
#pragma once
#include "../csrc/math/expm_lanes.h"
#include "block_kept.cuh"
#include "coefficients.cuh"

namespace lierope::cuda {

// The least k with x <= 2^(k 2^log), at least 0. x is normal.
template <class T>
__device__ __forceinline__ int root_of_power(T x, int log) {
  const int k = (int(math::ceil_log2<T>(x)) + (1 << log) - 1) >> log;
  return k > 0 ? k : 0;
}

// Where the threads of one matrix meet. All matrices of a block pass the same barriers.
template <class T>
struct BlockRoom {
  T *first, *second;  // buffers
  T* kept;            // for Kept in global memory
  T* sums;            // m^2 + m
  int* counts;        // of all matrices of the block
  int matrix, matrices;
};

template <class T, int TS>
class BlockExponential {
 public:
  using At = Tiles<T, TS>;
  using Half = HalfTile<T, TS>;
  using Slot = Kept<T, TS>;

  const At at;
  const BlockRoom<T> room;
  T* const m0;
  T* const m1;

  __device__ __forceinline__ BlockExponential(const At& at_, const BlockRoom<T>& room_)
      : at(at_), room(room_), m0(room_.first), m1(room_.second) {}

  // m0 = exp(sign A), less I unless `identity`. load(at, out, factor) writes factor A. NaN if A is
  // not finite, or so large that no digit of a result would be right.
  template <int sign, bool identity, class Load>
  __device__ __forceinline__ void exponential(const Load& load) {
    constexpr int K = math::kForwardTerms<T>;
    base<K, sign, identity>(load, T(math::SkewExp<T, K>::theta), false);
    LIEROPE_ROLLED
    for (int j = 0; j < most_; ++j) square<!identity>(j);
  }

  // w = psi(ad_A) w, psi(z) = (exp(z) - 1) / z, in place of w: its lower triangle.
  template <class Load>
  __device__ __forceinline__ void adjoint(const Load& load, Slot& w) {
    constexpr int K = math::kAdjointTerms<T>;
    base<K, -1, false>(load, T(math::SkewExp<T, K>::theta / 2), true);
    LIEROPE_ROLLED
    for (int j = 0; j < most_; ++j) {
      if (j > 0) square<true>(j - 1);
      average_conjugate(w, j);
    }
    series<K>(load, w);
  }

  // The sum of a number a thread over the threads of the matrix; all matrices call it together.
  __device__ __forceinline__ T sum(T x) const {
    T* by_row = room.sums + at.threads;
    room.sums[at.thread] = x;
    __syncthreads();
    if (at.thread < at.m) {
      T total = 0;
      for (int i = 0; i < at.m; ++i) total += room.sums[at.thread * at.m + i];
      by_row[at.thread] = total;
    }
    __syncthreads();
    T total = 0;
    for (int i = 0; i < at.m; ++i) total += by_row[i];
    return total;
  }

  __device__ __forceinline__ KeptFull<T, TS> full() const {
    return KeptFull<T, TS>(at, room.kept + int64_t(kKeptHalves) * At::kHalf * at.threads);
  }

  // Zero, or NaN for a matrix that has no exponential.
  __device__ __forceinline__ T poison() const { return poison_; }

  // Entry e of a buffer; 0 for those that are no thread's.
  __device__ __forceinline__ T entry(const T* buffer, int e) const {
    if (e >= TS * (TS / 2) && !at.extra) return 0;
    return buffer[at.entry_row(e) * at.stride + at.entry_column(e)];
  }
  __device__ __forceinline__ T mirrored_entry(const T* buffer, int e) const {
    if (e >= TS * (TS / 2) && !at.extra) return 0;
    return buffer[at.entry_column(e) * at.stride + at.entry_row(e)];
  }

 private:
  // Of this matrix, and of the one of the block that needs most.
  int halvings_ = 0, most_ = 0;
  T poison_ = 0, ratio_ = 1;

  __device__ __forceinline__ Slot slot(int place) const { return Slot(at, room.kept, place); }

  // |m|_F^2 / 2 of a symmetric matrix.
  __device__ __forceinline__ T half_square(const Slot& half) const {
    T total = 0;
    each_entry<T, TS>([&](int e) {
      const T weight = at.entry_row(e) == at.entry_column(e) ? T(0.5) : T(1);
      if (at.owns(e)) total += weight * half[e] * half[e];
    });
    return sum(total);
  }

  // The largest number of halvings in the block.
  __device__ __forceinline__ void agree() {
    if (at.thread == 0) room.counts[room.matrix] = halvings_;
    __syncthreads();
    most_ = 0;
    for (int i = 0; i < room.matrices; ++i)
      if (room.counts[i] > most_) most_ = room.counts[i];
  }

  // m0 = exp(sign X), less I unless `identity`; X = A / 2^s. With `only_if_halved` and s = 0 in all
  // the block, s alone.
  template <int K, int sign, bool identity, class Load>
  __device__ __forceinline__ void base(const Load& load, T theta, bool only_if_halved) {
    constexpr int P = K / 2;
    static_assert(P >= 2 && P <= 4);
    constexpr SkewTerms<T, K> terms = skew_terms<T, K>();
    Slot b1 = slot(0), b2 = slot(1), b3 = slot(2), c = slot(3), s = slot(4);
    if (!scale<K>(load, theta, only_if_halved, b1, b2)) return;
    if constexpr (P > 2) {
      Slot last = slot(5);
      if constexpr (P == 4) {
        b3 = half_product<1, 1>(at, m1, m0);
        b3.set([&](int e) { return ratio_ * b3[e]; });
        last = half_product<1, 1>(at, m0, m0);
      } else {
        last = half_product<1, 1>(at, m1, m0);
        last.set([&](int e) { return ratio_ * last[e]; });
      }
      __syncthreads();
      write_symmetric(at, m0, last);
    }
    // terms[first] B + .. B^P; the last power is in m0, the others kept.
    const auto combined = [&](const T(&t)[K + 1], int first, int e) {
      T x = t[first] * b1[e];
      if constexpr (P > 2) x += t[first + 1] * b2[e];
      if constexpr (P > 3) x += t[first + 2] * b3[e];
      return x + t[first + P - 1] * entry(m0, e);
    };
    // terms[1] B + .. + terms[K] B^K
    const auto even_part = [&](const T(&t)[K + 1], Slot& out) {
      write_symmetric(at, m1, [&](int e) { return combined(t, P + 1, e); });
      __syncthreads();
      out = half_product<1, 1>(at, m0, m1);
      out.set([&](int e) { return out[e] + combined(t, 1, e); });
      __syncthreads();
    };
    even_part(terms.s, s);
    even_part(terms.c, c);
    write_symmetric(at, m1, s);
    load(at, m0, math::power_of_two<T>(-halvings_));
    __syncthreads();
    Slot k = slot(5);
    k = half_product<-1, -1>(at, m0, m1);  // A (S - 1) = -A^T (S - 1)
    k.set([&](int e) { return k[e] + entry(m0, e); });
    __syncthreads();
    const auto even = [&](int e) {
      const bool one = identity && at.entry_row(e) == at.entry_column(e);
      return c[e] + (one ? T(1) + poison_ : poison_);
    };
    write_half(
        at, m0, [&](int e) { return even(e) + sign * k[e]; },
        [&](int e) { return even(e) - sign * k[e]; });
    __syncthreads();
  }

  // b1 = (A / 2^s)^2 and, in m0 too, its square; m1 = b1 / ratio. False if nothing is halved and
  // that is all that was asked.
  template <int K, class Load>
  __device__ __forceinline__ bool scale(const Load& load, T theta, bool only_if_halved, Slot& b1,
                                        Slot& b2) {
    const T theta4 = theta * theta * theta * theta;
    load(at, m0, T(1));
    __syncthreads();
    b1 = half_product<-1, 1>(at, m0, m0);  // A^2 = -A^T A
    halve(b1, theta4);
    write_symmetric(at, m1, b1);
    __syncthreads();
    b2 = half_product<1, 1>(at, m1, m1);
    refine(b2, theta4);
    if (only_if_halved && most_ == 0) return false;
    b1.set([&](int e) { return ratio_ * b1[e]; });
    b2.set([&](int e) { return ratio_ * ratio_ * b2[e]; });
    write_symmetric(at, m0, b2);
    __syncthreads();
    return true;
  }

  // b = (A / 2^s)^2 with |A / 2^s| <= theta by the bound |A|_2^4 <= |A^2|_F^2 / 2.
  __device__ __forceinline__ void halve(Slot& b, T theta4) {
    const T fourth = half_square(b) / theta4;
    const T largest = sizeof(T) == 4 ? T(0x1p127f) : T(0x1p160);
    const bool sound = fourth <= largest;  // false for NaN
    halvings_ = sound ? root_of_power(fourth, 2) : 0;
    poison_ = sound ? T(0) : T(__builtin_nan(""));
    const T factor = math::power_of_two<T>(-2 * halvings_);
    b.set([&](int e) { return factor * b[e]; });
  }

  // (|A^4|_F^2 / 2)^(1/8) is closer for large matrices: undoes halvings that it shows to be
  // needless. The ratio is the factor 4^t that b1 is then short of.
  __device__ __forceinline__ void refine(const Slot& b2, T theta4) {
    constexpr int kRefineFrom = 32;
    ratio_ = 1;
    if (at.n >= kRefineFrom) {
      const T eighth = half_square(b2) / (theta4 * theta4);
      int undone = -((int(math::ceil_log2<T>(eighth)) + 7) >> 3);
      undone = undone < 0 ? 0 : undone > halvings_ ? halvings_ : undone;
      halvings_ -= undone;
      ratio_ = math::power_of_two<T>(2 * undone);
    }
    agree();
  }

  // The rotation of m0 becomes its square in matrices with more than `step` halvings.
  template <bool beside_identity>
  __device__ __forceinline__ void square(int step) {
    KeptFull<T, TS> product = full();
    product.multiply(m0, m0, at.side);
    __syncthreads();
    if (halvings_ > step)
      product.each_row([&](int r, T(&line)[TS]) {
        if constexpr (beside_identity) {  // (I + E)^2 - I = 2 E + E^2
          LIEROPE_UNROLL
          for (int q = 0; q < TS / 4; ++q) {
            T old[4];
            load_numbers<4>(old, m0 + at.full_row(r) * at.stride + at.full_quad(q));
            LIEROPE_UNROLL
            for (int c = 0; c < 4; ++c) line[4 * q + c] += T(2) * old[c];
          }
        }
        write_row(at, m0, r, line);
      });
    __syncthreads();
  }

  // w = (w + R w R^T) / 2 = w + (V - V^T + F^T V) / 2 with I + F = R^T in m0 and V = w F.
  __device__ __forceinline__ void average_conjugate(Slot& w, int step) {
    write_skew(at, m1, w);
    __syncthreads();
    KeptFull<T, TS> v = full();
    v.multiply(m1, m0, at.side);
    __syncthreads();
    v.each_row([&](int r, T(&line)[TS]) { write_row(at, m1, r, line); });
    __syncthreads();
    Slot second = slot(0);
    second = half_product<1, -1>(at, m0, m1);
    if (halvings_ > step) {
      w.set([&](int e) {
        const T first = entry(m1, e) - mirrored_entry(m1, e);
        return w[e] + T(0.5) * (first + second[e]);
      });
    }
    __syncthreads();
  }

  // The sum of (ad_X)^k w times the terms of psi, by Horner; X = A / 2^s.
  template <int K, class Load>
  __device__ __forceinline__ void series(const Load& load, Slot& w) {
    static constexpr PsiTerms<T, K> terms = psi_terms<T, K>();
    load(at, m0, math::power_of_two<T>(-halvings_));
    Slot z = slot(0);
    T q = terms.v[2 * K];
    z.set([&](int e) { return q * w[e]; });
    LIEROPE_ROLLED
    for (int k = 2 * K - 1; k >= 0; --k) {
      q = terms.v[k];
      write_skew(at, m1, z);
      __syncthreads();
      Half bracket = zero_half<T, TS>();  // X Z - Z X = -X^T Z + Z^T X
      add_half_product<-1>(at, bracket, m0, m1, at.side);
      add_half_product<1>(at, bracket, m1, m0, at.side);
      complete<-1>(at, bracket);
      z = bracket;
      z.set([&](int e) { return q * w[e] + z[e]; });
      __syncthreads();
    }
    w.set([&](int e) { return z[e] + poison_; });
  }
};

}  // namespace lierope::cuda
