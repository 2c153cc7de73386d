// A block's shared memory: poisoned with NaN before each block, between guard zones that nothing
// may write.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace lierope::emulation {

class SharedMemory {
 public:
  static constexpr size_t kGuard = 256, kAlign = 128;
  static constexpr unsigned char kPoison = 0xff, kGuardByte = 0xa5;  // 0xff...: NaN of every type

  // Forgets the block before; `dynamic_bytes` are there from the start.
  void begin_block(size_t dynamic_bytes) {
    open_all();
    regions_.clear();
    end_ = 0;
    add(nullptr, dynamic_bytes);
  }

  void* dynamic() { return start() + regions_[0].begin; }

  // The variable known by `key`: the first thread that asks makes it.
  void* variable(const void* key, size_t bytes) {
    for (const Region& r : regions_)
      if (r.key == key) return start() + r.begin;
    return start() + add(key, bytes);
  }

  size_t static_bytes() const {
    size_t sum = 0;
    for (const Region& r : regions_) sum += r.key == nullptr ? 0 : r.bytes;
    return sum;
  }

  // Whether no guard zone was written.
  bool intact() {
    open_all();
    for (const Region& r : regions_)
      for (size_t i = 0; i < kGuard; ++i) {
        if (guard(start() + r.begin - kGuard + i) || guard(start() + r.begin + r.bytes + i))
          return false;
      }
    return true;
  }

 private:
  static constexpr size_t kCapacity = 1 << 20;  // far more than any processor has
  struct Region {
    const void* key;
    size_t begin, bytes;
  };
  std::vector<unsigned char> memory_ = std::vector<unsigned char>(kCapacity + kAlign);
  std::vector<Region> regions_;
  size_t end_ = 0;

  unsigned char* start() {
    const uintptr_t p = reinterpret_cast<uintptr_t>(memory_.data());
    return memory_.data() + ((p + kAlign - 1) / kAlign * kAlign - p);
  }
  static bool guard(const unsigned char* p) { return *p != kGuardByte; }

  size_t add(const void* key, size_t bytes) {
    const size_t begin = end_ + kGuard;
    end_ = (begin + bytes + kGuard + kAlign - 1) / kAlign * kAlign;
    if (end_ > kCapacity) __builtin_trap();
    unsigned char* p = start() + begin;
    std::memset(p - kGuard, kGuardByte, kGuard);
    std::memset(p, kPoison, bytes);
    std::memset(p + bytes, kGuardByte, kGuard);
    regions_.push_back({key, begin, bytes});
#if defined(__SANITIZE_ADDRESS__)
    __asan_poison_memory_region(p - kGuard, kGuard);
    __asan_poison_memory_region(p + bytes, kGuard);
#endif
    return begin;
  }

  void open_all() {
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(memory_.data(), memory_.size());
#endif
  }
};

}  // namespace lierope::emulation
