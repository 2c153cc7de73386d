// A (head, block) pair in each lane, and the positions that they go through together.
#pragma once
#include "../params/lie.h"
#include "../rays.h"
#include "simd.h"

namespace lierope::cpu::LIEROPE_ISA {

// Vectors of pairs that are done at once: their features lie behind one another in a row, and a
// short piece of a row takes as long to fetch as a longer one.
template <class T, int N>
inline constexpr int kVectors =
    N * LIEROPE_VECTOR_BYTES < 512 ? 512 / (N * LIEROPE_VECTOR_BYTES) : 1;

// Some vectors full of pairs, or those that are left, fewer than lanes, at several positions. Entry
// e of a vector is its pair e % pairs, at position e / pairs of a step; lanes past the entries do
// again what the first does.
struct PairGroup {
  int64_t first;  // head * blocks + block
  int vectors, pairs, positions;

  int count() const { return pairs * positions; }  // entries of a vector
  int64_t pair(int vector, int entry) const { return first + vector * pairs + entry % pairs; }
  int position(int entry) const { return entry / pairs; }
};

class PairGroups {
 public:
  PairGroups(const Lie& lie, int lanes, int vectors)
      : lanes_(lanes),
        vectors_(vectors),
        full_(lie.heads * lie.blocks / lanes),
        rest_(lie.heads * lie.blocks % lanes) {}

  int64_t count() const { return of_full() + (rest_ > 0); }
  PairGroup operator[](int64_t group) const {
    const int64_t first = group * vectors_ * lanes_, left = full_ - group * vectors_;
    if (group < of_full()) return {first, int(left < vectors_ ? left : vectors_), lanes_, 1};
    return {full_ * lanes_, 1, int(rest_), lanes_ / int(rest_)};
  }

 private:
  const int lanes_, vectors_;
  const int64_t full_, rest_;

  int64_t of_full() const { return (full_ + vectors_ - 1) / vectors_; }
};

// Which lane has an entry. Where N divides a vector, the features of consecutive entries fill whole
// vectors, and transposing squares of side N puts entries into this order.
template <class T, int N>
struct LaneOrder {
  static constexpr int L = kLanes<T>;
  static constexpr bool whole = (N & (N - 1)) == 0;
  static constexpr int side = whole && N < L ? N : L;
  static constexpr int each = L / side;  // entries of a vector

  static constexpr int lane(int entry) { return entry % each * side + entry / each; }
};

// Positions that the lanes have at the same time, with exponentials of their own if it `starts`, or
// else a multiple of the position that the last start had.
template <class T>
struct Step {
  int64_t items[kLanes<T>];  // sample * points + point
  int count;
  int64_t multiple;
  bool starts;
};

// The work is cut into tasks, each a range of rays of one group of pairs. How it is cut follows
// from sizes and positions alone, so that sums over tasks do not depend on the number of threads.
class LieTasks {
 public:
  // Rays are of no use to closed forms, nor where several positions share the lanes.
  LieTasks(const Lie& lie, const PairGroups& groups, bool together)
      : together_(lie, together ? Rays::kLongest : 0), single_(lie, 0), groups_(groups) {
    constexpr int64_t kEnough = 64;  // tasks to keep many threads busy
    const int64_t wanted = groups.count() > 0 ? (kEnough + groups.count() - 1) / groups.count() : 0;
    chunks_ = wanted < together_.count() ? wanted : together_.count();
  }
  struct Task {
    PairGroup group;
    const Rays& rays;
    int64_t first, last;
  };
  // All groups of a chunk, then the next: lines that two groups share are still in cache.
  Task operator[](int64_t index) const {
    const int64_t chunk = index / groups_.count();
    const PairGroup group = groups_[index % groups_.count()];
    const Rays& rays = group.positions > 1 ? single_ : together_;
    return {group, rays, cut(rays, chunk), cut(rays, chunk + 1)};
  }
  int64_t count() const { return groups_.count() * chunks_; }
  const PairGroups& groups() const { return groups_; }
  int64_t chunks() const { return chunks_; }
  int64_t longest() const { return together_.longest(); }  // multiple of a ray

 private:
  const Rays together_, single_;
  const PairGroups groups_;
  int64_t chunks_;

  // The first ray of a chunk: chunks take as long as one another.
  int64_t cut(const Rays& rays, int64_t chunk) const {
    if (chunk == chunks_) return rays.count();
    const int64_t all = work_before(rays, rays.count() - 1) + 1;
    int64_t low = 0, high = rays.count();
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (work_before(rays, middle) * chunks_ < chunk * all)
        low = middle + 1;
      else
        high = middle;
    }
    return low;
  }
  // An exponential takes the time of turning a few members' rows.
  static int64_t work_before(const Rays& rays, int64_t ray) {
    constexpr int64_t exponential = 3;
    return rays[ray].members - rays[0].members + exponential * ray;
  }
};

// Goes through the positions of a task.
template <class T>
class Steps {
 public:
  explicit Steps(const LieTasks::Task& task) : task_(task), ray_(task.first) {}

  bool next(Step<T>& step) {
    if (ray_ == task_.last) return false;
    step.starts = member_ == 0;
    const Ray ray = task_.rays[ray_];
    step.items[0] = ray.members[member_].item;
    step.multiple = ray.members[member_].multiple;
    step.count = 1;
    if (++member_ < ray.count) return true;
    member_ = 0;
    for (++ray_; step.count < task_.group.positions && ray_ < task_.last; ++ray_)
      step.items[step.count++] = task_.rays[ray_].root();
    return true;
  }

 private:
  const LieTasks::Task& task_;
  int64_t ray_, member_ = 0;
};

}  // namespace lierope::cpu::LIEROPE_ISA
