// CUDA's vector types, atomics, loads and mathematical functions on the CPU.
#pragma once
#include <cstring>

#define LIEROPE_VECTORS(T, name, a2, a4)                     \
  struct alignas(a2) name##2 { T x, y; };                    \
  struct alignas(a4) name##4 { T x, y, z, w; };              \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; } \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
LIEROPE_VECTORS(float, float, 8, 16)
LIEROPE_VECTORS(double, double, 16, 16)
LIEROPE_VECTORS(int, int, 8, 16)
LIEROPE_VECTORS(unsigned, uint, 8, 16)
LIEROPE_VECTORS(short, short, 4, 8)
LIEROPE_VECTORS(unsigned short, ushort, 4, 8)
LIEROPE_VECTORS(long long, longlong, 16, 16)
#undef LIEROPE_VECTORS

// Only one thread runs at a time.
template <class T>
T atomicAdd(T* p, T v) {
  const T old = *p;
  *p = old + v;
  return old;
}
template <class T>
T atomicMax(T* p, T v) {
  const T old = *p;
  *p = old < v ? v : old;
  return old;
}
template <class T>
T atomicMin(T* p, T v) {
  const T old = *p;
  *p = v < old ? v : old;
  return old;
}
template <class T>
T atomicExch(T* p, T v) {
  const T old = *p;
  *p = v;
  return old;
}
template <class T>
T atomicOr(T* p, T v) {
  const T old = *p;
  *p = old | v;
  return old;
}
inline void __threadfence() {}
inline void __threadfence_block() {}

template <class T>
T __ldg(const T* p) {
  return *p;
}
template <class T>
T __ldcs(const T* p) {
  return *p;
}
template <class T>
void __stcs(T* p, T v) {
  *p = v;
}
template <class T>
void __stwb(T* p, T v) {
  *p = v;
}

template <class T>
constexpr T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
constexpr T max(T a, T b) {
  return a < b ? b : a;
}

namespace lierope::emulation {
template <class To, class From>
To same_bits(From x) {
  static_assert(sizeof(To) == sizeof(From));
  To y;
  std::memcpy(&y, &x, sizeof y);
  return y;
}
}  // namespace lierope::emulation

inline unsigned __float_as_uint(float x) { return lierope::emulation::same_bits<unsigned>(x); }
inline int __float_as_int(float x) { return lierope::emulation::same_bits<int>(x); }
inline float __uint_as_float(unsigned x) { return lierope::emulation::same_bits<float>(x); }
inline float __int_as_float(int x) { return lierope::emulation::same_bits<float>(x); }
inline long long __double_as_longlong(double x) {
  return lierope::emulation::same_bits<long long>(x);
}
inline double __longlong_as_double(long long x) { return lierope::emulation::same_bits<double>(x); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(unsigned x) { return __builtin_ffs(int(x)); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(unsigned(x)); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float rsqrtf(float x) { return 1 / sqrtf(x); }
inline double rsqrt(double x) { return 1 / sqrt(x); }
inline void sincospif(float x, float* s, float* c) {
  const double turn = 3.14159265358979323846 * fmod(double(x), 2.0);
  *s = float(sin(turn));
  *c = float(cos(turn));
}
inline void sincospi(double x, double* s, double* c) {
  const long double turn = 3.14159265358979323846264338327950288L * fmodl(x, 2.0L);
  *s = double(sinl(turn));
  *c = double(cosl(turn));
}
