// FFTs of many blocks of features side by side in a team's memory, and the turn of their spectra.
#pragma once
#include "../csrc/math/fft.h"
#include "../csrc/params/rotate_circulant.h"
#include "portable.cuh"

namespace lierope::cuda {

using math::Complex;
using math::times;

// A complex number in memory: one access.
template <class T>
struct alignas(2 * sizeof(T)) Cell {
  T re, im;
};
template <class T>
__device__ __forceinline__ Complex<T> get(const Cell<T>& cell) {
  const Cell<T> read = cell;
  return {read.re, read.im};
}
template <class T>
__device__ __forceinline__ void put(Cell<T>& cell, const Complex<T>& value) {
  cell = Cell<T>{value.re, value.im};
}

// Where number i of a team's blocks stands: one place in nine stays empty, so that the threads of a
// stage meet different banks.
__host__ __device__ __forceinline__ constexpr int padded(int i) { return i + (i >> 3); }

// Threads that share blocks of features: a warp, or all threads of a CUDA block for long ones.
template <bool kLarge>
struct Team {
  int rank, size;

  __device__ __forceinline__ Team()
      : rank(int(kLarge ? threadIdx.x : threadIdx.x % warpSize)),
        size(int(kLarge ? blockDim.x : unsigned(warpSize))) {}
  __device__ __forceinline__ void sync() const {
    if constexpr (kLarge)
      __syncthreads();
    else
      __syncwarp();
  }
};

// As math::CirculantPlan: even blocks are n = b / 2 complex numbers, odd ones n = b without
// imaginary part.
struct CirculantSizes {
  int b, n, modes, stages;
  double half_inverse;  // 1 / 2 b
  uint64_t radices;     // four bits a stage: an array would be copied to be indexed

  __host__ __device__ int radix(int stage) const { return int(radices >> (4 * stage) & 15); }
  __host__ __device__ bool even() const { return b % 2 == 0; }
  // What cosines and sines carry: the inverse's 1 / n and the halves of splitting a spectrum, 1 / 4
  // n or 1 / n.
  template <class T>
  __device__ __forceinline__ T scale() const {
    return even() ? T(half_inverse) : T(2 * half_inverse);
  }
};

// What all teams of a CUDA block read.
template <class T>
struct CirculantTables {
  Cell<T>* roots;      // e^{-2 pi i k / n}, k < n
  Cell<T>* unit;       // e^{-2 pi i m / b}, m = 0 .. n / 2
  uint16_t* position;  // where mode m stands after the forward transform

  static constexpr int64_t round_up(int64_t bytes) { return (bytes + 15) / 16 * 16; }
  static int64_t bytes(int n) {
    return round_up((n + n / 2 + 1) * int64_t(sizeof(Cell<T>))) + round_up(2 * n);
  }
  __device__ CirculantTables(char* room, int n)
      : roots(reinterpret_cast<Cell<T>*>(room)),
        unit(roots + n),
        position(reinterpret_cast<uint16_t*>(unit + n / 2 + 1)) {}

  __device__ void fill(const CirculantSizes& s) const {
    const double half = s.even() ? 2 * s.half_inverse : s.half_inverse, half_of_b = s.half_inverse;
    for (int k = int(threadIdx.x); k < s.n; k += int(blockDim.x)) {
      fill_root(roots + k, k, s.n, half);
      if (2 * k <= s.n) fill_root(unit + k, k, s.b, half_of_b);
      int rest = k, at = 0, part = s.n;
      for (int stage = 0; stage < s.stages; ++stage) {
        const int radix = s.radix(stage);
        part /= radix;
        at += rest % radix * part;
        rest /= radix;
      }
      position[k] = uint16_t(at);
    }
  }

 private:
  // e^{-2 pi i k / n} = (-i)^q e^{-i pi r / 2 n}, q the integer next to 4 k / n, r = 4 k - q n: the
  // rounding of the angle then costs no more than that of the result.
  __device__ static void fill_root(Cell<T>* cell, int k, int n, double half_inverse) {
    const int q = (4 * k + n / 2) / n;
    double sine, cosine;
    sincospi((4 * k - q * n) * half_inverse, &sine, &cosine);
    const double re = q % 2 == 0 ? cosine : -sine, im = q % 2 == 0 ? -sine : -cosine;
    const T sign = q % 4 < 2 ? T(1) : T(-1);
    *cell = Cell<T>{sign * T(re), sign * T(im)};
  }
};

// One stage of the transforms of `count` numbers at z[padded(first)].
template <int R, bool inverse, bool kLarge, class T>
__device__ __forceinline__ void fft_stage(const Team<kLarge>& team, const Cell<T>* roots,
                                          Cell<T>* z, int first, int count, int n, int length) {
  const int part = length / R, step = n / length;
  const bool by_shift = (part & (part - 1)) == 0;
  const int shift = 31 - __clz(part);
  for (int item = team.rank; item < count / R; item += team.size) {
    const int block = by_shift ? item >> shift : item / part;
    const int j = item - block * part, base = first + block * length + j;
    Complex<T> v[R];
    LIEROPE_UNROLL
    for (int q = 0; q < R; ++q) {
      v[q] = get(z[padded(base + q * part)]);
      if (inverse && q > 0 && part > 1) {
        const Complex<T> w = get(roots[j * q * step]);
        v[q] = times<true>(v[q], w.re, w.im);
      }
    }
    math::butterfly<R, inverse>(v);
    LIEROPE_UNROLL
    for (int q = 0; q < R; ++q) {
      if (!inverse && q > 0 && part > 1) {
        const Complex<T> w = get(roots[j * q * step]);
        v[q] = times<false>(v[q], w.re, w.im);
      }
      put(z[padded(base + q * part)], v[q]);
    }
  }
  team.sync();
}

template <bool inverse, bool kLarge, class T>
__device__ __forceinline__ void fft_any_stage(int radix, const Team<kLarge>& team,
                                              const Cell<T>* roots, Cell<T>* z, int first,
                                              int count, int n, int length) {
  switch (radix) {
    case 2: return fft_stage<2, inverse>(team, roots, z, first, count, n, length);
    case 3: return fft_stage<3, inverse>(team, roots, z, first, count, n, length);
    case 4: return fft_stage<4, inverse>(team, roots, z, first, count, n, length);
    case 5: return fft_stage<5, inverse>(team, roots, z, first, count, n, length);
    default: return fft_stage<8, inverse>(team, roots, z, first, count, n, length);
  }
}

// In place; forward leaves mode m of a block at `position[m]`.
template <bool kLarge, class T>
__device__ __forceinline__ void fft_forward(const Team<kLarge>& team, const CirculantSizes& s,
                                            const Cell<T>* roots, Cell<T>* z, int first,
                                            int count) {
  int length = s.n;
  LIEROPE_ROLLED
  for (int stage = 0; stage < s.stages; length /= s.radix(stage++))
    fft_any_stage<false>(s.radix(stage), team, roots, z, first, count, s.n, length);
}
// n times the inverse.
template <bool kLarge, class T>
__device__ __forceinline__ void fft_backward(const Team<kLarge>& team, const CirculantSizes& s,
                                             const Cell<T>* roots, Cell<T>* z, int first,
                                             int count) {
  int length = 1;
  LIEROPE_ROLLED
  for (int stage = s.stages - 1; stage >= 0; --stage)
    fft_any_stage<true>(s.radix(stage), team, roots, z, first, count, s.n,
                        length *= s.radix(stage));
}

// One block's spectrum, and the cosines and sines of its modes, times scale().
template <class T>
struct Spectrum {
  const CirculantSizes& sizes;
  const CirculantTables<T>& tables;
  const Cell<T>* phases;  // of modes 1, 2, ...
  Cell<T>* z;
  int first;

  __device__ __forceinline__ Cell<T>& mode(int m) const {
    return z[padded(first + tables.position[m])];
  }
  // 2 X_m and 2 conj X_{n-m} of an even block; see math/circulant.h.
  __device__ __forceinline__ void split(int m, Complex<T>* low, Complex<T>* high) const {
    const Complex<T> a = get(mode(m)), c = get(mode(sizes.n - m)), u = get(tables.unit[m]);
    const Complex<T> e{a.re + c.re, a.im - c.im}, o{a.im + c.im, c.re - a.re};
    const Complex<T> turned = times<false>(o, u.re, u.im);
    *low = e + turned;
    *high = e - turned;
  }
  __device__ __forceinline__ void merge(int m, const Complex<T>& low,
                                        const Complex<T>& high) const {
    const Complex<T> u = get(tables.unit[m]), e = low + high;
    const Complex<T> o = times<true>(low - high, u.re, u.im);
    put(mode(m), {e.re - o.im, e.im + o.re});
    put(mode(sizes.n - m), {e.re + o.im, o.re - e.im});
  }
  __device__ __forceinline__ void scale_constant(T factor) const {
    const Complex<T> a = get(mode(0));
    put(mode(0), {a.re * factor, a.im * factor});
  }
  // Modes m and n - m of an odd block are conjugates.
  __device__ __forceinline__ void put_odd(int m, const Complex<T>& y) const {
    put(mode(m), y);
    put(mode(sizes.n - m), conjugate(y));
  }
};

// Multiplies mode m by e^{i t_m} and its partner n - m by its own: m = 0 .. n / 2 are all.
template <class T>
__device__ __forceinline__ void turn_mode(const Spectrum<T>& x, int m) {
  const CirculantSizes& s = x.sizes;
  if (m == 0) return x.scale_constant(s.template scale<T>() * (s.even() ? T(4) : T(1)));
  const Complex<T> phase = get(x.phases[m - 1]);
  if (!s.even()) return x.put_odd(m, times<false>(get(x.mode(m)), phase.re, phase.im));
  if (2 * m == s.n) {  // X_{n/2} = conj Z_{n/2}
    const Complex<T> a = get(x.mode(m));
    return put(x.mode(m), times<true>(Complex<T>{a.re * 4, a.im * 4}, phase.re, phase.im));
  }
  const Complex<T> mirrored = get(x.phases[s.n - m - 1]);
  Complex<T> low, high;
  x.split(m, &low, &high);
  x.merge(m, times<false>(low, phase.re, phase.im), times<true>(high, mirrored.re, mirrored.im));
}

// -Im(conj(g) y)
template <class T>
__device__ __forceinline__ T angle_term(const Complex<T>& g, const Complex<T>& y) {
  return g.im * y.re - g.re * y.im;
}

// g, the gradient, takes e^{-i t_m} g_m; scale * dL/dt_m is added to sums[m - 1]. y is what the
// forward wrote. See math/circulant.h.
template <class T>
__device__ __forceinline__ void turn_mode_adjoint(const Spectrum<T>& g, const Spectrum<T>& y, int m,
                                                  T* sums) {
  const CirculantSizes& s = g.sizes;
  if (m == 0) return g.scale_constant(s.template scale<T>() * (s.even() ? T(4) : T(1)));
  const Complex<T> phase = get(g.phases[m - 1]);
  if (!s.even()) {
    const Complex<T> grad = get(g.mode(m));
    sums[m - 1] += 2 * angle_term(grad, get(y.mode(m)));
    return g.put_odd(m, times<true>(grad, phase.re, phase.im));
  }
  if (2 * m == s.n) {
    const Complex<T> a = get(g.mode(m)), grad{a.re * 4, a.im * 4};
    sums[m - 1] -= angle_term(grad, get(y.mode(m)));
    return put(g.mode(m), times<false>(grad, phase.re, phase.im));
  }
  const Complex<T> mirrored = get(g.phases[s.n - m - 1]);
  Complex<T> low, high, y_low, y_high;
  g.split(m, &low, &high);
  y.split(m, &y_low, &y_high);
  sums[m - 1] += angle_term(low, y_low);
  sums[s.n - m - 1] -= angle_term(high, y_high);  // both are conjugates
  g.merge(m, times<true>(low, phase.re, phase.im), times<false>(high, mirrored.re, mirrored.im));
}

}  // namespace lierope::cuda
