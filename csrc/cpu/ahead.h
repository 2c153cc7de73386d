// Memory that is asked for before its turn, while the processor computes.
#pragma once
#include <cstdint>

#include "../math/portable.h"

namespace lierope::cpu::LIEROPE_ISA {

// Some lines at a time, between products: its gradient, its output, whose lines a store would
// otherwise wait for, and the input of the next matrix. All at once they would wait for each other.
struct Ahead {
  struct Lines {
    const char *next = nullptr, *end = nullptr;

    Lines() = default;
    template <class T>
    Lines(const T* first, int64_t count)  // none where `first` is null
        : next(reinterpret_cast<const char*>(first)),
          end(first == nullptr ? next : next + count * int64_t(sizeof(T))) {}
    int64_t count() const { return (end - next + 63) / 64; }
  };
  // Lines that lie apart.
  struct Places {
    const void* const* next = nullptr;
    const void* const* end = nullptr;
  };
  Lines gradient, output, input;
  Places places;
  int each = 0;

  Ahead() = default;
  // To be asked for within `turns` calls.
  Ahead(Lines of_gradient, Lines of_output, Lines of_input, int64_t turns)
      : gradient(of_gradient),
        output(of_output),
        input(of_input),
        each(1 + int((gradient.count() + output.count() + input.count()) / turns)) {}

  Ahead(Places of_all, int64_t turns)
      : places(of_all), each(1 + int((places.end - places.next) / turns)) {}

  LIEROPE_HD void some_lines() {
    int l = 0;
    for (; l < each && places.next < places.end; ++l) __builtin_prefetch(*places.next++, 0, 2);
    for (Lines& x = gradient; l < each && x.next < x.end; ++l, x.next += 64)
      __builtin_prefetch(x.next, 0, 2);
    for (Lines& x = output; l < each && x.next < x.end; ++l, x.next += 64)
      __builtin_prefetch(x.next, 1, 2);
    for (Lines& x = input; l < each && x.next < x.end; ++l, x.next += 64)
      __builtin_prefetch(x.next, 0, 2);
  }
};

}  // namespace lierope::cpu::LIEROPE_ISA
