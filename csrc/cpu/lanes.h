// Rows of B elements in memory to and from vectors with one row a lane.
#pragma once
#include "../math/element.h"
#include "convert.h"

namespace lierope::cpu::LIEROPE_ISA {

// Row l of up to kLanes rows. Lanes past the last row read it again and are never written.
template <class Storage>
struct LaneRows {
  Storage* data;
  int64_t stride;
  int count;  // 1 .. kLanes

  LIEROPE_HD Storage* row(int lane) const {
    return data + (lane < count ? lane : count - 1) * stride;
  }
  LIEROPE_HD LaneRows at(int64_t offset) const { return {data + offset, stride, count}; }
};

// What storage looks like in a vector: 16-bit elements as words.
template <class Storage>
using Raw = std::conditional_t<sizeof(Storage) == 2, uint16_t, std::remove_const_t<Storage>>;

// Vector of Parts segments of B elements, each loaded by load(part).
template <class R, int B, int First, int Parts, class Load>
LIEROPE_HD math::Vector<R, B * Parts> join_segments(Load load) {
  if constexpr (Parts == 1) {
    return load(First);
  } else {
    return math::join(join_segments<R, B, First, Parts / 2>(load),
                      join_segments<R, B, First + Parts / 2, Parts / 2>(load));
  }
}

// Element j of row i of each B x B block of lanes <-> element i of row j.
template <class T, int B, int H = B / 2>
LIEROPE_HD void transpose_blocks(Vec<T>* rows) {
  if constexpr (H > 0) {
    LIEROPE_UNROLL
    for (int i = 0; i < B; ++i) {
      if (!(i & H))
        swap_halves<T, H>(rows[i], rows[i | H], std::make_integer_sequence<int, kLanes<T>>());
    }
    transpose_blocks<T, B, H / 2>(rows);
  }
}

// B a power of two up to the number of lanes: out[j] is element j of every row.
template <int B, class Storage, class T>
LIEROPE_HD void load_segments(const LaneRows<const Storage>& rows, Vec<T>* out) {
  constexpr int L = kLanes<T>;
  if constexpr (B == 1) {
    Storage column[L];
    LIEROPE_UNROLL
    for (int lane = 0; lane < L; ++lane) column[lane] = *rows.row(lane);
    out[0] = load_wide(column);
  } else {
    using R = Raw<Storage>;
    LIEROPE_UNROLL
    for (int i = 0; i < B; ++i) {
      const math::Vector<R, L> raw = join_segments<R, B, 0, L / B>([&](int part) {
        math::Vector<R, B> segment;
        std::memcpy(&segment, rows.row(part * B + i), sizeof segment);
        return segment;
      });
      out[i] = load_wide(reinterpret_cast<const Storage*>(&raw));
    }
    transpose_blocks<T, B>(out);
  }
}

template <int B, class Storage, int Part>
LIEROPE_HD void store_parts(const LaneRows<Storage>& rows, int i,
                            const math::Vector<Raw<Storage>, kLanes<Compute<Storage>>>& raw) {
  constexpr int L = kLanes<Compute<Storage>>;
  if constexpr (Part < L / B) {
    const auto segment = math::part<Part * B, B>(raw);
    if (Part * B + i < rows.count) std::memcpy(rows.row(Part * B + i), &segment, sizeof segment);
    store_parts<B, Storage, Part + 1>(rows, i, raw);
  }
}

// in is overwritten.
template <int B, class Storage, class T>
LIEROPE_HD void store_segments(const LaneRows<Storage>& rows, Vec<T>* in) {
  constexpr int L = kLanes<T>;
  if constexpr (B == 1) {
    Storage column[L];
    store_narrow(column, in[0]);
    for (int lane = 0; lane < rows.count; ++lane) *rows.row(lane) = column[lane];
  } else {
    transpose_blocks<T, B>(in);
    LIEROPE_UNROLL
    for (int i = 0; i < B; ++i) {
      math::Vector<Raw<Storage>, L> raw;
      store_narrow(reinterpret_cast<Storage*>(&raw), in[i]);
      store_parts<B, Storage, 0>(rows, i, raw);
    }
  }
}

// The largest power of two up to both n and the number of lanes.
template <class T>
constexpr int segment_size(int n) {
  int size = kLanes<T>;
  while (size > n) size /= 2;
  return size;
}

// out[j], j < B, is element j of every row; nothing outside the rows is read.
template <int B, class Storage, class T>
LIEROPE_HD void load_rows(const LaneRows<const Storage>& rows, Vec<T>* out) {
  if constexpr (B > 0) {
    constexpr int size = segment_size<T>(B);
    load_segments<size, Storage, T>(rows, out);
    load_rows<B - size, Storage, T>(rows.at(size), out + size);
  }
}

template <int B, class Storage, class T>
LIEROPE_HD void store_rows(const LaneRows<Storage>& rows, Vec<T>* in) {
  if constexpr (B > 0) {
    constexpr int size = segment_size<T>(B);
    store_segments<size, Storage, T>(rows, in);
    store_rows<B - size, Storage, T>(rows.at(size), in + size);
  }
}

}  // namespace lierope::cpu::LIEROPE_ISA
