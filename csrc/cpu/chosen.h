// Costs that the environment may overrule.
#pragma once
#include <cstdlib>
#include <cstring>

#include "../math/portable.h"

namespace lierope::cpu::LIEROPE_ISA {

enum class Chosen { by_cost, never, always };

// What the variable says, `never` or `always`, for measuring costs and for tests; else by cost.
inline Chosen chosen(const char* variable) {
  const char* word = std::getenv(variable);
  if (word == nullptr) return Chosen::by_cost;
  return std::strcmp(word, "always") == 0  ? Chosen::always
         : std::strcmp(word, "never") == 0 ? Chosen::never
                                           : Chosen::by_cost;
}

}  // namespace lierope::cpu::LIEROPE_ISA
