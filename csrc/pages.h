// Memory that is written for the first time.
#pragma once
#include <cstddef>

namespace lierope {

// Fresh memory is mapped page by page on the first write, which for a large buffer costs as much as
// filling it; pages of 2 MiB cost a hundredth. Asks for those where a buffer fills some. Only
// advice: nothing depends on it.
void prefer_large_pages(const void* data, size_t bytes);

}  // namespace lierope
