// Tables of each block size's FFT, made at its first use and kept.
#pragma once
#include <cstdlib>

#include "../math/circulant.h"
#include "../params/rotate_circulant.h"

namespace lierope::cpu::LIEROPE_ISA {

template <class T>
math::CirculantPlan<T>* make_circulant_plan(int64_t b) {
  using Plan = math::CirculantPlan<T>;
  Plan plan{};
  const int64_t n = b % 2 == 0 ? b / 2 : b;
  plan.fft.n = n;
  plan.b = b;
  plan.modes = (b - 1) / 2;
  plan.scale = T(1) / T(b % 2 == 0 ? 4 * n : n);
  math::choose_radices(plan.fft);
  const int64_t twiddles = math::twiddle_count(plan.fft), units = n / 2 + 1;
  const size_t bytes =
      sizeof(Plan) + size_t(twiddles + 2 * units) * sizeof(T) + size_t(n) * sizeof(int32_t);
  char* memory = static_cast<char*>(std::malloc(bytes));
  if (memory == nullptr) std::abort();
  T* numbers = reinterpret_cast<T*>(memory + sizeof(Plan));
  math::fill_tables(plan.fft, numbers, reinterpret_cast<int32_t*>(numbers + twiddles + 2 * units));
  T* unit = numbers + twiddles;
  for (int64_t m = 0; m < units; ++m) math::unit_root(m, b, unit + 2 * m, unit + 2 * m + 1);
  plan.unit = unit;
  return new (memory) Plan(plan);
}

template <class T>
const math::CirculantPlan<T>& circulant_plan(int64_t b) {
  using Plan = math::CirculantPlan<T>;
  static Plan* plans[kCirculantLargest + 1];
  Plan* plan = __atomic_load_n(&plans[b], __ATOMIC_ACQUIRE);
  if (plan != nullptr) return *plan;
  Plan* made = make_circulant_plan<T>(b);
  if (__atomic_compare_exchange_n(&plans[b], &plan, made, false, __ATOMIC_ACQ_REL,
                                  __ATOMIC_ACQUIRE))
    return *made;
  std::free(made);  // another thread was first
  return *plan;
}

}  // namespace lierope::cpu::LIEROPE_ISA
