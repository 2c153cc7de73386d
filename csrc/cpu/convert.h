// Vectors of arithmetic type from and to storage type, whole or the first few lanes.
#pragma once
#include "simd.h"

namespace lierope::cpu::LIEROPE_ISA {

namespace halves {  // 16-bit storage, one element for each lane of Vec<float>
inline constexpr int L = kLanes<float>;
typedef uint16_t Words __attribute__((vector_size(2 * L)));
typedef uint32_t Bits __attribute__((vector_size(4 * L)));
#if defined(__AVX512F__)
inline constexpr uint16_t kAll = 0xffff;  // GCC 12 warns of its own unmasked intrinsics
#endif
}  // namespace halves

template <class Storage>
LIEROPE_HD Vec<Compute<Storage>> load_wide(const Storage* p) {
  return load<Storage>(p);
}
template <>
LIEROPE_HD Vec<float> load_wide<BFloat16>(const BFloat16* p) {
#if defined(__AVX512F__)  // GCC splits this conversion in two
  __m256i words;
  std::memcpy(&words, p, sizeof words);
  return Vec<float>(halves::Bits(_mm512_maskz_cvtepu16_epi32(halves::kAll, words)) << 16);
#else
  halves::Words words;
  std::memcpy(&words, p, sizeof words);
  return Vec<float>(__builtin_convertvector(words, halves::Bits) << 16);
#endif
}
template <>
LIEROPE_HD Vec<float> load_wide<Half>(const Half* p) {
#if defined(__AVX512F__)
  __m256i words;
  std::memcpy(&words, p, sizeof words);
  return Vec<float>(_mm512_maskz_cvtph_ps(halves::kAll, words));
#elif defined(__F16C__)
  __m128i words;
  std::memcpy(&words, p, sizeof words);
  return Vec<float>(_mm256_cvtph_ps(words));
#else
  Vec<float> v;
  for (int i = 0; i < kLanes<float>; ++i) v[i] = widen(p[i]);
  return v;
#endif
}

template <class Storage>
LIEROPE_HD void store_narrow(Storage* p, Vec<Compute<Storage>> v) {
  store<Storage>(p, v);
}
template <>
LIEROPE_HD void store_narrow<BFloat16>(BFloat16* p, Vec<float> v) {
  const halves::Bits bits = halves::Bits(v);
  const halves::Bits rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  const halves::Bits nearest = (v == v) ? rounded : (bits | 0x400000u);  // NaN stays NaN
  const halves::Words words = __builtin_convertvector(nearest >> 16, halves::Words);
  std::memcpy(p, &words, sizeof words);
}
template <>
LIEROPE_HD void store_narrow<Half>(Half* p, Vec<float> v) {
#if defined(__AVX512F__)
  const __m256i words = _mm512_maskz_cvtps_ph(halves::kAll, __m512(v), _MM_FROUND_TO_NEAREST_INT);
  std::memcpy(p, &words, sizeof words);
#elif defined(__F16C__)
  const __m128i words = _mm256_cvtps_ph(__m256(v), _MM_FROUND_TO_NEAREST_INT);
  std::memcpy(p, &words, sizeof words);
#else
  for (int i = 0; i < kLanes<float>; ++i) p[i] = narrow<Half>(v[i]);
#endif
}

template <class Storage>
__attribute__((noinline)) inline Vec<Compute<Storage>> load_first(const Storage* p, int64_t count) {
  Storage copy[kLanes<Compute<Storage>>] = {};
  std::memcpy(copy, p, size_t(count) * sizeof(Storage));
  return load_wide(copy);
}
template <class Storage>
__attribute__((noinline)) inline void store_first(Storage* p, Vec<Compute<Storage>> v,
                                                  int64_t count) {
  Storage copy[kLanes<Compute<Storage>>];
  store_narrow(copy, v);
  std::memcpy(p, copy, size_t(count) * sizeof(Storage));
}

#if defined(__AVX512F__)
template <>
LIEROPE_HD Vec<float> load_first<float>(const float* p, int64_t count) {
  return Vec<float>(_mm512_maskz_loadu_ps(__mmask16((1u << count) - 1), p));
}
template <>
LIEROPE_HD void store_first<float>(float* p, Vec<float> v, int64_t count) {
  _mm512_mask_storeu_ps(p, __mmask16((1u << count) - 1), __m512(v));
}
#endif

// The first `count` lanes, 0 < count <= lanes; the others are zero. Nothing else is read or
// written.
template <class Storage>
LIEROPE_HD Vec<Compute<Storage>> load_wide(const Storage* p, int64_t count) {
  return count == kLanes<Compute<Storage>> ? load_wide(p) : load_first(p, count);
}
template <class Storage>
LIEROPE_HD void store_narrow(Storage* p, Vec<Compute<Storage>> v, int64_t count) {
  count == kLanes<Compute<Storage>> ? store_narrow(p, v) : store_first(p, v, count);
}

// Calls f(i, count) for the vectors of [0, n): count is a constant for all but a last short one.
template <int L, class F>
LIEROPE_HD void for_vectors(int64_t n, F&& f) {
  int64_t i = 0;
  for (; i + L <= n; i += L) f(i, std::integral_constant<int64_t, L>());
  if (i < n) f(i, n - i);
}

}  // namespace lierope::cpu::LIEROPE_ISA
