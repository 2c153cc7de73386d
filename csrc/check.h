// Errors as one line of text: what op, which argument, the rule, what came.
#pragma once
#include <sstream>
#include <stdexcept>

namespace lierope {

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream text;
  ((text << parts), ...);
  throw std::runtime_error(text.str());
}

}  // namespace lierope

#define LIEROPE_CHECK(condition, ...)               \
  do {                                              \
    if (!(condition)) ::lierope::fail(__VA_ARGS__); \
  } while (false)
