// CUDA's words on the CPU: what the kernels of cuda/ use, run by block.h. Barriers and warp
// collectives that not all threads reach, reads of lanes that take no part, writes beyond shared
// memory and impossible launches are errors; shared memory holds NaN until it is written.
//
// By hand, a main.cpp that includes cuda/rotate_pairs.cuh and calls its launchers with
// lierope::cuda::Launch{nullptr, workspace, 4, 232448, 90}:
//   g++ -std=c++20 -O1 -g -DLIEROPE_EMULATED -DLIEROPE_ISA=emulated main.cpp -o main && ./main
// with -fsanitize=address,undefined it sees accesses beyond global memory too.
#pragma once
#include <math.h>

#include <cstring>
#include <mutex>
#include <tuple>

#include "../../csrc/params/launch.h"
#include "block.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __constant__ static const
#define __align__(n) alignas(n)

#define threadIdx (::lierope::emulation::the_thread()->index)
#define blockIdx (::lierope::emulation::machine().block_index)
#define blockDim (::lierope::emulation::machine().block)
#define gridDim (::lierope::emulation::machine().grid)
constexpr int warpSize = 32;

namespace lierope::emulation {

inline const Thread* the_thread() { return machine().current; }

template <class T>
T* dynamic_shared() {
  return static_cast<T*>(machine().shared.dynamic());
}
template <class T>
T* static_shared(const void* key, size_t count) {
  return static_cast<T*>(machine().shared.variable(key, count * sizeof(T)));
}

inline void check_launch(const dim3& grid, const dim3& block, int64_t shared_bytes,
                         const cuda::Launch& launch) {
  const bool fits = grid.x <= 0x7fffffffu && grid.y <= 65535 && grid.z <= 65535 && block.x > 0 &&
                    block.y > 0 && block.z > 0 && block.z <= 64 &&
                    uint64_t(block.x) * block.y * block.z <= 1024 && shared_bytes >= 0 &&
                    shared_bytes <= launch.shared_bytes;
  if (fits) return;
  std::ostringstream text;
  text << "emulated CUDA: no processor can launch a grid of (" << grid.x << ", " << grid.y << ", "
       << grid.z << ") blocks of (" << block.x << ", " << block.y << ", " << block.z
       << ") threads with " << shared_bytes << " bytes of shared memory";
  throw std::runtime_error(text.str());
}

template <class... Parameters, class... Arguments>
void run_grid(void (*kernel)(Parameters...), dim3 grid, dim3 block, int64_t shared_bytes,
              const cuda::Launch& launch, Arguments&&... arguments) {
  static std::mutex one_at_a_time;
  const std::lock_guard<std::mutex> lock(one_at_a_time);
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  check_launch(grid, block, shared_bytes, launch);
  struct Call {
    void (*kernel)(Parameters...);
    std::tuple<Parameters...> arguments;
  } call{kernel, {Parameters(std::forward<Arguments>(arguments))...}};
  Machine& m = machine();
  m.grid = grid, m.block = block;
  auto body = [](void* p) {
    const Call& c = *static_cast<const Call*>(p);
    std::apply(c.kernel, c.arguments);
  };
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        m.block_index = {x, y, z};
        m.run(body, &call, size_t(shared_bytes));
      }
}

// What lane `source` gave to a collective that all lanes of `mask` call.
template <class T>
T exchange(unsigned mask, const T& value, int source, const Place& place) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  uint64_t given = 0, taken = 0;
  std::memcpy(&given, &value, sizeof value);
  Machine& m = machine();
  m.wait(Wait::warp, Collective::shuffle, mask, given, place);
  if ((m.current->joined >> source & 1) == 0)
    m.stop("a shuffle reads a lane that takes no part in it", place);
  taken = m.lane(source).published;
  T result;
  std::memcpy(&result, &taken, sizeof result);
  return result;
}
inline int lane_number() { return the_thread()->number % kWarp; }

// The lanes of a mask whose predicate holds.
inline unsigned vote(unsigned mask, bool predicate, const Place& place) {
  Machine& m = machine();
  m.wait(Wait::warp, Collective::vote, mask, predicate, place);
  unsigned lanes = 0;
  for (int i = 0; i < kWarp; ++i)
    if ((m.current->joined >> i & 1) != 0 && m.lane(i).published != 0) lanes |= 1u << i;
  return lanes;
}

inline void block_barrier(bool predicate, const Place& place) {
  machine().wait(Wait::block, Collective::sync, 0, predicate, place);
}

}  // namespace lierope::emulation

#define LIEROPE_HERE \
  const ::lierope::emulation::Place& place = ::lierope::emulation::Place::current()

inline void __syncthreads(LIEROPE_HERE) { ::lierope::emulation::block_barrier(false, place); }
inline int __syncthreads_or(int p, LIEROPE_HERE) {
  ::lierope::emulation::block_barrier(p != 0, place);
  return ::lierope::emulation::machine().predicate_or != 0;
}
inline int __syncthreads_and(int p, LIEROPE_HERE) {
  ::lierope::emulation::block_barrier(p != 0, place);
  return ::lierope::emulation::machine().predicate_and != 0;
}
inline int __syncthreads_count(int p, LIEROPE_HERE) {
  ::lierope::emulation::block_barrier(p != 0, place);
  return int(::lierope::emulation::machine().predicate_count);
}

inline void __syncwarp(unsigned mask = 0xffffffffu, LIEROPE_HERE) {
  using namespace ::lierope::emulation;
  machine().wait(Wait::warp, Collective::sync, mask, 0, place);
}
inline unsigned __ballot_sync(unsigned mask, int p, LIEROPE_HERE) {
  return ::lierope::emulation::vote(mask, p != 0, place);
}
inline int __any_sync(unsigned mask, int p, LIEROPE_HERE) {
  return ::lierope::emulation::vote(mask, p != 0, place) != 0;
}
inline int __all_sync(unsigned mask, int p, LIEROPE_HERE) {
  return ::lierope::emulation::vote(mask, p == 0, place) == 0;
}
template <class T>
T __shfl_sync(unsigned mask, T v, int source, int width = 32, LIEROPE_HERE) {
  const int base = ::lierope::emulation::lane_number() & ~(width - 1);
  return ::lierope::emulation::exchange(mask, v, base | (source & (width - 1)), place);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T v, int bits, int width = 32, LIEROPE_HERE) {
  const int lane = ::lierope::emulation::lane_number(), source = lane ^ bits;
  const bool inside = (source & ~(width - 1)) <= (lane & ~(width - 1));
  return ::lierope::emulation::exchange(mask, v, inside ? source : lane, place);
}
template <class T>
T __shfl_down_sync(unsigned mask, T v, unsigned delta, int width = 32, LIEROPE_HERE) {
  const int lane = ::lierope::emulation::lane_number(), source = lane + int(delta);
  const bool inside = (source & ~(width - 1)) == (lane & ~(width - 1));
  return ::lierope::emulation::exchange(mask, v, inside ? source : lane, place);
}
template <class T>
T __shfl_up_sync(unsigned mask, T v, unsigned delta, int width = 32, LIEROPE_HERE) {
  const int lane = ::lierope::emulation::lane_number(), source = lane - int(delta);
  const bool inside = source >= (lane & ~(width - 1));
  return ::lierope::emulation::exchange(mask, v, inside ? source : lane, place);
}

#undef LIEROPE_HERE

#include "device_functions.h"
