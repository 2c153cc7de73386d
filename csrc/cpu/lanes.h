// Rows of B elements in memory to and from vectors with one row a lane.
#pragma once
#include "../math/element.h"
#include "convert.h"
#include "rows.h"
#include "scratch.h"

namespace lierope::cpu::LIEROPE_ISA {

// As many rows as a vector has lanes.
template <class T>
struct LaneRows {
  T* data;
  int64_t stride;

  LIEROPE_HD T* row(int lane) const { return data + lane * stride; }
  LIEROPE_HD LaneRows at(int64_t offset) const { return {data + offset, stride}; }
};

// Vector of Parts segments of B elements, each loaded by load(part).
template <class T, int B, int First, int Parts, class Load>
LIEROPE_HD math::Vector<T, B * Parts> join_segments(Load load) {
  if constexpr (Parts == 1) {
    return load(First);
  } else {
    return math::join(join_segments<T, B, First, Parts / 2>(load),
                      join_segments<T, B, First + Parts / 2, Parts / 2>(load));
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
template <int B, class T, class R>
LIEROPE_HD void load_segments(const R& rows, Vec<T>* out) {
  constexpr int L = kLanes<T>;
  if constexpr (B == 1) {
    T column[L];
    LIEROPE_UNROLL
    for (int lane = 0; lane < L; ++lane) column[lane] = *rows.row(lane);
    out[0] = load(column);
  } else {
    LIEROPE_UNROLL
    for (int i = 0; i < B; ++i) {
      out[i] = join_segments<T, B, 0, L / B>([&](int part) {
        math::Vector<T, B> segment;
        std::memcpy(&segment, rows.row(part * B + i), sizeof segment);
        return segment;
      });
    }
    transpose_blocks<T, B>(out);
  }
}

template <int B, class T, int Part = 0, class R>
LIEROPE_HD void store_parts(const R& rows, int i, const Vec<T>& v) {
  if constexpr (Part < kLanes<T> / B) {
    const auto segment = math::part<Part * B, B>(v);
    std::memcpy(rows.row(Part * B + i), &segment, sizeof segment);
    store_parts<B, T, Part + 1>(rows, i, v);
  }
}

template <int B, class T, class R>
LIEROPE_HD void store_segments(const R& rows, const Vec<T>* in) {
  constexpr int L = kLanes<T>;
  if constexpr (B == 1) {
    T column[L];
    store<T>(column, in[0]);
    LIEROPE_UNROLL
    for (int lane = 0; lane < L; ++lane) *rows.row(lane) = column[lane];
  } else {
    // A copy: the caller's array may have to be written, as far as the compiler knows.
    Vec<T> block[B];
    LIEROPE_UNROLL
    for (int i = 0; i < B; ++i) block[i] = in[i];
    transpose_blocks<T, B>(block);
    LIEROPE_UNROLL
    for (int i = 0; i < B; ++i) store_parts<B, T>(rows, i, block[i]);
  }
}

// The largest power of two up to both n and the number of lanes.
template <class T>
constexpr int segment_size(int n) {
  int size = kLanes<T>;
  while (size > n) size /= 2;
  return size;
}

// out[j], j < B, is element j of every row; nothing outside the rows is read. R has row(lane) and
// at(offset), as LaneRows.
template <int B, class T, class R>
LIEROPE_HD void load_rows(const R& rows, Vec<T>* out) {
  if constexpr (B > 0) {
    constexpr int size = segment_size<T>(B);
    load_segments<size, T>(rows, out);
    load_rows<B - size, T>(rows.at(size), out + size);
  }
}

template <int B, class T, class R>
LIEROPE_HD void store_rows(const R& rows, const Vec<T>* in) {
  if constexpr (B > 0) {
    constexpr int size = segment_size<T>(B);
    store_segments<size, T>(rows, in);
    store_rows<B - size, T>(rows.at(size), in + size);
  }
}

// Up to kLanes rows.
template <class T>
struct SomeRows {
  T* data;
  int64_t stride;
  int count;
};

// Gives lanes full rows: the rows themselves, or a copy where there are fewer (the others are
// zero). What is written to `target` reaches its rows by `flush`.
template <class T>
class StagedRows {
  static constexpr int L = kLanes<T>;

 public:
  explicit StagedRows(int64_t features)
      : features_(features), stride_((features + L - 1) / L * L), copy_(stride_ * L) {}

  LaneRows<const T> read(const SomeRows<const T>& rows) {
    if (rows.count == L) return {rows.data, rows.stride};
    for (int lane = 0; lane < L; ++lane)
      for (int64_t f = 0; f < features_; f += L)
        store<T>(
            copy_ + lane * stride_ + f,
            lane < rows.count ? load_wide(rows.data + lane * rows.stride + f, part(f)) : Vec<T>{});
    return {copy_, stride_};
  }
  LaneRows<T> target(const SomeRows<T>& rows) {
    if (rows.count == L) return {rows.data, rows.stride};
    return {copy_, stride_};
  }
  void flush(const SomeRows<T>& rows) {
    if (rows.count == L) return;
    for (int lane = 0; lane < rows.count; ++lane)
      for (int64_t f = 0; f < features_; f += L)
        store_narrow(rows.data + lane * rows.stride + f, load<T>(copy_ + lane * stride_ + f),
                     part(f));
  }

 private:
  int64_t part(int64_t f) const { return features_ - f < L ? features_ - f : L; }

  int64_t features_, stride_;
  Scratch<T> copy_;
};

}  // namespace lierope::cpu::LIEROPE_ISA
