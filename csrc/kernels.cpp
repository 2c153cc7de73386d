// Chooses, once, the kernels that fit this processor.
#include "kernels.h"

#include <cstdlib>
#include <cstring>

#include "check.h"

namespace lierope {

#if defined(__x86_64__)
namespace cpu::avx512 {
extern const Kernels table;
}
namespace cpu::avx2 {
extern const Kernels table;
}
#endif
namespace cpu::baseline {
extern const Kernels table;
}

namespace {

struct Choice {
  const Kernels* table;
  bool runs_here;
};

const Kernels& choose() {
  const Choice choices[] = {
#if defined(__x86_64__)
      {&cpu::avx512::table,
       __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")},
      {&cpu::avx2::table, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")},
#endif
      {&cpu::baseline::table, true},
  };
  const char* forced = std::getenv("LIEROPE_ISA");
  if (forced == nullptr || *forced == '\0') {
    for (const Choice& choice : choices)
      if (choice.runs_here) return *choice.table;
  }
  for (const Choice& choice : choices) {
    if (std::strcmp(choice.table->name, forced) != 0) continue;
    LIEROPE_CHECK(choice.runs_here, "LIEROPE_ISA: this processor must support ", forced,
                  ", but it does not; unset the variable to let lierope choose");
    return *choice.table;
  }
  LIEROPE_CHECK(false, "LIEROPE_ISA must be avx512, avx2 or baseline, got ", forced);
  return *choices[0].table;
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

}  // namespace lierope
