// Fibers: a thread of a CUDA block as a stack of its own and a switch of a few nanoseconds
// (x86-64).
#pragma once
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(__x86_64__)
#error "the emulation of CUDA switches fibers on x86-64 only"
#endif

extern "C" void lierope_emulation_switch(void** save, void* load);
asm(R"(
.text
.weak lierope_emulation_switch
.hidden lierope_emulation_switch
.type lierope_emulation_switch,@function
lierope_emulation_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size lierope_emulation_switch, .-lierope_emulation_switch
)");

namespace lierope::emulation {

// Stacks with a page between them that must not be touched. The odd page also keeps equal depths of
// all stacks from falling into the same cache sets.
class Stacks {
 public:
  static constexpr size_t kPage = 4096, kBytes = 256 << 10, kStride = kBytes + kPage;

  char* bottom(size_t i) {
    while (stacks_.size() <= i) grow();
    return stacks_[i];
  }

 private:
  static constexpr size_t kChunk = 64;
  std::vector<char*> stacks_;

  void grow() {
    void* memory = mmap(nullptr, kChunk * kStride, PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::runtime_error("emulation: no memory for stacks");
    for (size_t i = 0; i < kChunk; ++i) {
      char* stack = static_cast<char*>(memory) + i * kStride + kPage;
      if (mprotect(stack, kBytes, PROT_READ | PROT_WRITE) != 0)
        throw std::runtime_error("emulation: no memory for stacks");
      stacks_.push_back(stack);
    }
  }
};

// One side of a switch: where it stopped, and what AddressSanitizer must know of its stack.
struct Context {
  void* stack_pointer = nullptr;
  const void* bottom = nullptr;
  size_t bytes = 0;
  void* fake_stack = nullptr;
};

// Says at the start of a fiber, and after each return into it, that the switch is over.
inline void arrived([[maybe_unused]] Context& here, [[maybe_unused]] Context* came_from) {
#if defined(__SANITIZE_ADDRESS__)
  const void* bottom = nullptr;
  size_t bytes = 0;
  __sanitizer_finish_switch_fiber(here.fake_stack, &bottom, &bytes);
  if (came_from != nullptr && came_from->bottom == nullptr) {
    came_from->bottom = bottom;
    came_from->bytes = bytes;
  }
#endif
}

inline void switch_fiber(Context& from, Context& to, [[maybe_unused]] bool last = false) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(last ? nullptr : &from.fake_stack, to.bottom, to.bytes);
#endif
  lierope_emulation_switch(&from.stack_pointer, to.stack_pointer);
  arrived(from, nullptr);
}

// Lays the stack so that the first switch enters `entry`, which must never return.
inline void prepare(Context& fiber, char* bottom, void (*entry)()) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(bottom, Stacks::kBytes);  // frames left by the fiber before
#endif
  void** top = reinterpret_cast<void**>(bottom + Stacks::kBytes);
  *--top = nullptr;  // the return address of `entry`, which leaves its stack aligned as by a call
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  fiber = {top, bottom, Stacks::kBytes, nullptr};
}

}  // namespace lierope::emulation
