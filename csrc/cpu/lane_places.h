// Features of the pairs in the lanes: where they lie in a tensor, read and written.
#pragma once
#include "lane_pairs.h"
#include "lanes.h"

namespace lierope::cpu::LIEROPE_ISA {

// One row of features for each lane, anywhere.
template <class S>
struct PlacedRows {
  S* data;
  const int64_t* offsets;

  LIEROPE_HD S* row(int lane) const { return data + offsets[lane]; }
  LIEROPE_HD PlacedRows at(int64_t offset) const { return {data + offset, offsets}; }
};

// F features of each pair of a tensor with strides for samples and points; pairs of side N.
template <class S, int N, int F = N>
class LanePlaces {
  using Storage = std::remove_const_t<S>;
  using T = Compute<Storage>;
  using Order = LaneOrder<T, N>;
  static constexpr int L = kLanes<T>, M = kVectors<T, N>;

 public:
  LanePlaces(S* data, const Lie& lie, int64_t sample, int64_t point)
      : data_(data), points_(lie.points), sample_(sample), point_(point), copy_(L * kStride) {}

  // offset(pair): of its features from those of pair 0. Up to `room` from there there is memory.
  template <class Offset>
  void select(const PairGroup& group, int64_t room, Offset&& offset) {
    group_ = &group;
    has_room_ = true;
    adjacent_ = kMayFill && group.count() == L && group.pairs % Order::each == 0;
    for (int m = 0; m < group.vectors; ++m) {
      for (int l = 0; l < L; ++l) offsets_[m][l] = offset(group.pair(m, 0));
      for (int e = 0; e < group.count(); ++e) {
        const int64_t first = offset(group.pair(m, e / Order::each * Order::each));
        offsets_[m][Order::lane(e)] = offset(group.pair(m, e));
        adjacent_ = adjacent_ && offsets_[m][Order::lane(e)] == first + e % Order::each * N;
        has_room_ = has_room_ && offsets_[m][Order::lane(e)] + kPadded <= room;
      }
    }
    for (int l = 0; l < L; ++l) pair_[l] = offsets_[0][l];
  }
  // Of this step's positions; those of `next` are asked for meanwhile.
  void set(const Step<T>& step, const Step<T>& next) {
    const int64_t first = offset(step.items[0]);
    count_ = step.count * group_->pairs;
    full_ = count_ == group_->count();
    start_ = data_ + first;
    ahead_ = offset(next.items[0]) - first;
    for (int e = group_->pairs; e < count_; ++e)
      offsets_[0][Order::lane(e)] =
          pair_[Order::lane(e)] + offset(step.items[group_->position(e)]) - first;
  }

  // Whether the features of this step fill whole vectors.
  static constexpr bool kMayFill = Order::whole && F == N;
  bool fill() const { return full_ && adjacent_; }

  // out[f] is feature f of every pair of a vector, `row` elements on; zero where a position is
  // missing.
  template <bool filled>
  LIEROPE_HD void load(int vector, int64_t row, Vec<T>* out) const {
    const int64_t* offsets = offsets_[vector];
    if constexpr (filled) return load_whole(start_ + row, offsets, out);
    if constexpr (std::is_same_v<Storage, T>) {
      if (full_ && has_room_) return load_padded(start_ + row, offsets, out);
      if (full_) return load_rows<F, T>(PlacedRows<S>{start_ + row, offsets}, out);
    }
    stage(start_ + row, offsets, out);
  }
  template <bool filled>
  LIEROPE_HD void store(int vector, int64_t row, const Vec<T>* in) const {
    const int64_t* offsets = offsets_[vector];
    if constexpr (filled) return store_whole(start_ + row, offsets, in);
    if constexpr (std::is_same_v<Storage, T>) {
      if (full_) return store_rows<F, T>(PlacedRows<S>{start_ + row, offsets}, in);
    }
    unstage(start_ + row, offsets, in);
  }
  // Asks for that row of the next step: it lies too far off for the processor to foresee.
  template <bool filled>
  LIEROPE_HD void prefetch(int vector, int64_t row) const {
    const S* there = start_ + row + ahead_;
    constexpr int lines = 64 / (N * sizeof(S)) > 1 && !Order::whole ? 64 / (N * sizeof(S)) : 1;
    LIEROPE_UNROLL
    for (int l = 0; l < (filled ? Order::side : L); l += lines)
      __builtin_prefetch(there + offsets_[vector][l], 0, 2);
  }

 private:
  static constexpr int64_t kStride = (F + L - 1) / L * L;
  // Pieces of this many features are read at once, and those past F thrown away.
  static constexpr int kPiece = segment_size<T>(F) < F && segment_size<T>(F) < L
                                    ? 2 * segment_size<T>(F)
                                    : segment_size<T>(F);
  static constexpr int kPadded = (F + kPiece - 1) / kPiece * kPiece;
  S* const data_;
  S* start_ = nullptr;  // at the first position of the step
  const int64_t points_, sample_, point_;
  const PairGroup* group_ = nullptr;
  bool adjacent_ = false, has_room_ = false, full_ = false;
  int count_ = 0;
  int64_t ahead_ = 0, offsets_[M][L], pair_[L];  // those of a first vector at one position
  Scratch<T> copy_;

  LIEROPE_HD int64_t offset(int64_t item) const {
    return item / points_ * sample_ + item % points_ * point_;
  }
  LIEROPE_HD void load_whole(S* from, const int64_t* offsets, Vec<T>* out) const {
    LIEROPE_UNROLL
    for (int f = 0; f < N; f += Order::side) {
      LIEROPE_UNROLL
      for (int i = 0; i < Order::side; ++i) out[f + i] = load_wide<Storage>(from + offsets[i] + f);
      transpose_blocks<T, Order::side>(out + f);
    }
  }
  LIEROPE_HD void store_whole(S* to, const int64_t* offsets, const Vec<T>* in) const {
    LIEROPE_UNROLL
    for (int f = 0; f < N; f += Order::side) {
      Vec<T> rows[Order::side];
      LIEROPE_UNROLL
      for (int i = 0; i < Order::side; ++i) rows[i] = in[f + i];
      transpose_blocks<T, Order::side>(rows);
      LIEROPE_UNROLL
      for (int i = 0; i < Order::side; ++i) store_narrow<Storage>(to + offsets[i] + f, rows[i]);
    }
  }
  LIEROPE_HD void load_padded(S* from, const int64_t* offsets, Vec<T>* out) const {
    LIEROPE_UNROLL
    for (int f = 0; f < F; f += kPiece) {
      Vec<T> rows[kPiece];
      load_segments<kPiece, T>(PlacedRows<S>{from + f, offsets}, rows);
      LIEROPE_UNROLL
      for (int i = 0; i < kPiece; ++i)
        if (f + i < F) out[f + i] = rows[i];
    }
  }

  // By a copy of full rows of arithmetic type.
  LIEROPE_NOINLINE void stage(S* from, const int64_t* offsets, Vec<T>* out) const {
    for (int e = 0; e < L; ++e)
      for (int f = 0; f < F; f += L) {
        const int lane = Order::lane(e);
        cpu::LIEROPE_ISA::store<T>(
            copy_ + lane * kStride + f,
            e < count_ ? load_wide<Storage>(from + offsets[lane] + f, smaller(L, F - f))
                       : Vec<T>{});
      }
    load_rows<F, T>(LaneRows<const T>{copy_, kStride}, out);
  }
  LIEROPE_NOINLINE void unstage(S* to, const int64_t* offsets, const Vec<T>* in) const {
    store_rows<F, T>(LaneRows<T>{copy_, kStride}, in);
    for (int e = 0; e < count_; ++e)
      for (int f = 0; f < F; f += L) {
        const int lane = Order::lane(e);
        store_narrow<Storage>(to + offsets[lane] + f,
                              cpu::LIEROPE_ISA::load<T>(copy_ + lane * kStride + f),
                              smaller(L, F - f));
      }
  }
};

}  // namespace lierope::cpu::LIEROPE_ISA
