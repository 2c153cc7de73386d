// Runs the threads of a CUDA block one at a time, in an order that the tests vary, from barrier to
// barrier.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <source_location>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "fibers.h"
#include "shared_memory.h"

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};

namespace lierope::emulation {

using Place = std::source_location;
constexpr int kWarp = 32;

enum class Wait : uint8_t { none, warp, block, done };
enum class Collective : uint8_t { sync, shuffle, vote };

struct Thread {
  Context context;
  uint3 index{};
  int number = 0;  // in the block
  Wait wait = Wait::none;
  Collective kind = Collective::sync;
  unsigned mask = 0;    // lanes a collective was called for
  unsigned joined = 0;  // lanes that took part in the last one
  uint64_t given = 0, published = 0;
  Place place = Place::current();
};

// The order of threads: it changes from block to block (forward, reverse, two random ones) unless
// LIEROPE_EMULATION_ORDER is forward, reverse or a seed. A result that depends on it lacks a
// barrier.
class Order {
 public:
  Order() {
    const char* text = std::getenv("LIEROPE_EMULATION_ORDER");
    if (text == nullptr || *text == '\0') return;
    const std::string name = text;
    if (name != "forward" && name != "reverse") {
      char* end = nullptr;
      seed_ = std::strtoull(text, &end, 10);
      if (*end != '\0')
        throw std::runtime_error(
            "LIEROPE_EMULATION_ORDER must be forward, reverse or a seed, got " + name);
    }
    forced_ = name == "forward" ? 0 : name == "reverse" ? 1 : 2;
  }

  void next_block() {
    ++blocks_;
    kind_ = forced_ >= 0 ? forced_ : int(blocks_ % 4);
    state_ = (seed_ + blocks_) * 0x9e3779b97f4a7c15u + 1;
  }

  // The numbers 0 .. n - 1 in the order of this pass.
  const std::vector<int>& pass(int n, std::vector<int>& room) {
    room.resize(size_t(n));
    for (int i = 0; i < n; ++i) room[size_t(i)] = kind_ == 1 ? n - 1 - i : i;
    if (kind_ < 2) return room;
    for (int i = n - 1; i > 0; --i) std::swap(room[size_t(i)], room[random() % unsigned(i + 1)]);
    return room;
  }

 private:
  int forced_ = -1, kind_ = 0;
  uint64_t seed_ = 1, blocks_ = 0, state_ = 1;

  unsigned random() {
    state_ ^= state_ << 13, state_ ^= state_ >> 7, state_ ^= state_ << 17;
    return unsigned(state_ >> 33);
  }
};

class Machine {
 public:
  dim3 grid, block;
  uint3 block_index{};
  SharedMemory shared;
  Thread* current = nullptr;
  uint64_t predicate_and = 1, predicate_or = 0, predicate_count = 0;  // of the last block barrier

  // Runs one block; body is what a thread does.
  void run(void (*body)(void*), void* argument, size_t dynamic_bytes) {
    body_ = body, argument_ = argument;
    begin(dynamic_bytes);
    for (bool over = false; !over;) {
      for (int warp : order_.pass(warps(), warp_order_)) run_warp(warp * kWarp);
      over = meet_at_barrier();
    }
    if (!shared.intact()) fail("a thread wrote beyond its shared memory", nullptr);
  }

  // Called by a thread: waits for the others.
  void wait(Wait what, Collective kind, unsigned mask, uint64_t given, const Place& place) {
    Thread& me = *current;
    me.wait = what, me.kind = kind, me.mask = mask, me.given = given, me.place = place;
    switch_fiber(me.context, scheduler_);
  }

  // Called by a thread: ends the launch with an error.
  [[noreturn]] void stop(const char* why, const Place& place) {
    error_ = why;
    current->place = place;
    for (;;) switch_fiber(current->context, scheduler_);
  }

  Thread& lane(int i) { return threads_[size_t(current->number / kWarp * kWarp + i)]; }

  [[noreturn]] void fail(const std::string& what, const Thread* where) const {
    std::ostringstream text;
    text << "emulated CUDA: " << what << " (block " << block_index.x << ", " << block_index.y
         << ", " << block_index.z;
    if (where != nullptr)
      text << ", thread " << where->number << ", " << where->place.file_name() << ":"
           << where->place.line();
    text << ")";
    throw std::runtime_error(text.str());
  }

 private:
  std::vector<Thread> threads_;
  Stacks stacks_;
  Order order_;
  Context scheduler_;
  void (*body_)(void*) = nullptr;
  void* argument_ = nullptr;
  const char* error_ = nullptr;
  std::vector<int> warp_order_, lane_order_;

  int count() const { return int(threads_.size()); }
  int warps() const { return (count() + kWarp - 1) / kWarp; }

  static void enter();

  void begin(size_t dynamic_bytes) {
    error_ = nullptr;
    order_.next_block();
    shared.begin_block(dynamic_bytes);
    threads_.resize(size_t(block.x) * block.y * block.z);
    for (int i = 0; i < count(); ++i) {
      Thread& t = threads_[size_t(i)];
      const unsigned n = unsigned(i);
      t.number = i;
      t.wait = Wait::none;
      t.index = {n % block.x, n / block.x % block.y, n / block.x / block.y};
      prepare(t.context, stacks_.bottom(size_t(i)), &Machine::enter);
    }
  }

  // Until every thread of the warp has ended or waits for the block.
  void run_warp(int first) {
    const int lanes = count() - first < kWarp ? count() - first : kWarp;
    do {
      for (int i : order_.pass(lanes, lane_order_)) {
        Thread& t = threads_[size_t(first + i)];
        if (t.wait != Wait::none) continue;
        current = &t;
        switch_fiber(scheduler_, t.context);
        if (error_ != nullptr) fail(error_, &t);
      }
    } while (release_collectives(first, lanes));
  }

  // Lets go the lanes whose partners have all come; whether there were any.
  bool release_collectives(int first, int lanes) {
    bool released = false;
    const Thread* stuck = nullptr;
    for (int i = 0; i < lanes; ++i) {
      Thread& t = threads_[size_t(first + i)];
      if (t.wait != Wait::warp) continue;
      unsigned here = 0;
      bool complete = (t.mask >> i & 1) != 0;
      for (int j = 0; j < lanes && complete; ++j) {
        const Thread& other = threads_[size_t(first + j)];
        if ((t.mask >> j & 1) == 0 || other.wait == Wait::done) continue;
        complete = other.wait == Wait::warp && other.mask == t.mask && other.kind == t.kind &&
                   other.place.line() == t.place.line();
        here |= 1u << j;
      }
      if (!complete) {
        stuck = &t;
        continue;
      }
      released = true;
      publish(first, here);
    }
    if (!released && stuck != nullptr)
      fail("a collective of the warp is not reached by every lane of its mask", stuck);
    return released;
  }

  void publish(int first, unsigned here) {
    for (int j = 0; j < kWarp; ++j) {
      if ((here >> j & 1) == 0) continue;
      Thread& t = threads_[size_t(first + j)];
      t.published = t.given, t.joined = here, t.wait = Wait::none;
    }
  }

  // Once every warp has stopped: lets all go on from a barrier. Whether all threads have ended.
  bool meet_at_barrier() {
    const Thread *waiting = nullptr, *ended = nullptr;
    predicate_and = 1, predicate_or = 0, predicate_count = 0;
    for (const Thread& t : threads_) {
      if (t.wait == Wait::done) {
        ended = &t;
        continue;
      }
      if (waiting != nullptr && waiting->place.line() != t.place.line())
        fail("threads of a block wait at different barriers", &t);
      waiting = &t;
      predicate_and &= t.given != 0, predicate_or |= t.given != 0, predicate_count += t.given != 0;
    }
    if (waiting == nullptr) return true;
    if (ended != nullptr) fail("a barrier is not reached by every thread of the block", waiting);
    for (Thread& t : threads_) t.wait = Wait::none;
    return false;
  }
};

// One at a time: the emulation of a process is one processor.
inline Machine& machine() {
  static Machine the_machine;
  return the_machine;
}

inline void Machine::enter() {
  Machine& m = machine();
  arrived(m.current->context, &m.scheduler_);
  m.body_(m.argument_);
  m.current->wait = Wait::done;
  switch_fiber(m.current->context, m.scheduler_, true);
  __builtin_trap();
}

}  // namespace lierope::emulation
