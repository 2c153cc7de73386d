// Advice to the kernel about large buffers; other systems than Linux are left alone.
#include "pages.h"

#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace lierope {

void prefer_large_pages(const void* data, size_t bytes) {
#if defined(__linux__)
  constexpr uintptr_t kPage = uintptr_t(1) << 21;
  if (bytes < 2 * kPage) return;
  // Whole pages around the buffer: allocators put a few bytes before it, and one that starts a few
  // bytes into a page of 2 MiB would else have it in small ones.
  const uintptr_t begin = reinterpret_cast<uintptr_t>(data) & ~(kPage - 1);
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + bytes + kPage - 1) & ~(kPage - 1);
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)data;
  (void)bytes;
#endif
}

}  // namespace lierope
