// Reads choices off the bytes that a fuzzer mutates; past their end every choice is the first.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>

class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : next_(data), left_(size) {}

  template <class T>
  T number() {
    T value{};
    const size_t count = sizeof(T) < left_ ? sizeof(T) : left_;
    if (count > 0) std::memcpy(&value, next_, count);
    next_ += count;
    left_ -= count;
    return value;
  }
  bool flag() { return (number<uint8_t>() & 1) != 0; }
  // From low to high, both included; at most 65536 values.
  int64_t between(int64_t low, int64_t high) { return low + number<uint16_t>() % (high - low + 1); }
  template <class T>
  T one_of(std::initializer_list<T> values) {
    return values.begin()[between(0, int64_t(values.size()) - 1)];
  }

 private:
  const uint8_t* next_;
  size_t left_;
};
