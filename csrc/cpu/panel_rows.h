// Rows of two tensors, q's and k's, to and from the elements of a panel of either layout.
#pragma once
#include "panel_lie.h"
#include "panel_tokens.h"

namespace lierope::cpu::LIEROPE_ISA {

// x, or in io what gives NaN for a matrix that was not finite.
template <class Y>
typename Panel<Y>::Root sound(const Panel<Y>& panel, typename Panel<Y>::Root x) {
  if constexpr (Y::kLanewise) {
    bool all_good = true;
    for (int l = 0; l < Y::kGroup; ++l) all_good = all_good && !panel.bad(l);
    if (all_good) return x;
    panel.copy(x.matrix, panel.io);
  } else if (x.matrix != nullptr) {
    return x;
  }
  panel.poison(panel.io);
  return {panel.io, x.squarings};
}

template <class Storage, class Y>
class PanelRows {
 public:
  using T = Compute<Storage>;
  using E = typename Y::Element;
  // As many at once as stay in cache beside the rotation.
  static constexpr int64_t kAtOnce = Y::kLanewise ? 16 : kTurnedAtOnce;

  PanelRows(const Tokens& tokens, const Shape<Y>& shape)
      : head_dim_(tokens.head_dim),
        count_(TurnedRows(tokens).count()),
        n_(shape.n),
        stride_(shape.stride) {}

  int64_t count() const { return count_; }

  // The `count` rows from `first` on of one rotation.
  void read(const QueriesAndKeys<const Storage>& from, const RotationIndex& at, int64_t first,
            int count, E* to) const {
    const auto rows = rows_of(from, at);
    for (int r = 0; r < count; ++r) gather(rows[first + r], to + r * stride_, n_);
  }
  void write(const E* from, const RotationIndex& at, int64_t first, int count,
             const QueriesAndKeys<Storage>& to) const {
    const auto rows = rows_of(to, at);
    for (int r = 0; r < count; ++r) scatter(from + r * stride_, rows[first + r], n_);
  }

  // Of one rotation a lane; where there is none the rows are zero.
  void read(const QueriesAndKeys<const Storage>& from, const LaneIndex<T>& at, int64_t first,
            int count, E* to) const {
    static constexpr Storage kNone[L] = {};
    // A whole vector where the row of features goes on: the rest of it is not used.
    const bool whole = (at.block * n_ + L) <= head_dim_;
    for (int r = 0; r < count; ++r) {
      const LaneRow<const Storage> x = lane_row(from, first + r, at);
      ask_ahead(from, first + r, at);
      const Storage* place[L];
      LIEROPE_UNROLL
      for (int l = 0; l < L; ++l) place[l] = at.has(l) ? x.at(l) : kNone;
      Vec<T> rows[L];
      if (whole) {
        LIEROPE_UNROLL
        for (int l = 0; l < L; ++l) rows[l] = load_wide(place[l]);
      } else {
        LIEROPE_UNROLL
        for (int l = 0; l < L; ++l) rows[l] = load_wide(place[l], n_);
      }
      transpose<T>(rows);
      LIEROPE_UNROLL
      for (int j = 0; j < L; ++j)
        if (j < n_) to[r * stride_ + j] = rows[j];
    }
  }
  void write(const E* from, const LaneIndex<T>& at, int64_t first, int count,
             const QueriesAndKeys<Storage>& to) const {
    for (int r = 0; r < count; ++r) {
      const LaneRow<Storage> y = lane_row(to, first + r, at);
      ask_ahead(to, first + r, at);
      Vec<T> rows[L];
      LIEROPE_UNROLL
      for (int j = 0; j < L; ++j) rows[j] = j < n_ ? from[r * stride_ + j] : Vec<T>{};
      transpose<T>(rows);
      LIEROPE_UNROLL
      for (int l = 0; l < L; ++l)
        if (at.has(l)) store_narrow(y.at(l), rows[l], n_);
    }
  }

  // The lines of the first of these rows, in places from `to` on; returns their end.
  template <class S>
  const void** list(const QueriesAndKeys<S>& x, const RotationIndex& at, const void** to) const {
    const auto rows = rows_of(x, at);
    for (int64_t r = 0; r < asked(); ++r) {
      const auto first = reinterpret_cast<uintptr_t>(rows[r]);
      const auto end = reinterpret_cast<uintptr_t>(rows[r] + n_);
      for (uintptr_t line = first / kLine * kLine; line < end; line += kLine)
        *to++ = reinterpret_cast<const void*>(line);
    }
    return to;
  }
  template <class S>
  const void** list(const QueriesAndKeys<S>& x, const LaneIndex<T>& at, const void** to) const {
    for (int64_t r = 0; r < asked(); ++r) {
      const LaneRow<S> rows = lane_row(x, r, at);
      for (int l = 0; l < L; ++l)
        if (at.has(l)) *to++ = rows.at(l);
    }
    return to;
  }
  int64_t listed() const {
    return asked() * (Y::kLanewise ? L : n_ * int64_t(sizeof(Storage)) / kLine + 2);
  }

 private:
  static constexpr int L = kLanes<T>;
  static constexpr int64_t kLine = 64;  // bytes
  const int64_t head_dim_, count_;
  const int n_, stride_;

  int64_t asked() const { return smaller(count_, kAtOnce); }

  // The same row of the rotations of all lanes.
  template <class S>
  struct LaneRow {
    S* first;
    int64_t sample, point;  // strides
    const LaneIndex<T>& index;

    LIEROPE_HD S* at(int lane) const {
      return first + index.sample[lane] * sample + index.point[lane] * point;
    }
  };
  template <class S>
  LIEROPE_HD LaneRow<S> lane_row(const QueriesAndKeys<S>& x, int64_t r,
                                 const LaneIndex<T>& at) const {
    return {x.of(0, at.head, 0, at.block * n_)[r], x.sample_stride(r), x.point_stride(r), at};
  }

  // Lines of one token lie too far apart for the processor to foresee.
  template <class S>
  LIEROPE_HD void ask_ahead(const QueriesAndKeys<S>& x, int64_t r, const LaneIndex<T>& at) const {
    if (r + kAtOnce >= count()) return;
    const LaneRow<S> rows = lane_row(x, r + kAtOnce, at);
    for (int l = 0; l < L; ++l)
      if (at.has(l)) __builtin_prefetch(rows.at(l), 0, 2);
  }

  template <class S>
  LIEROPE_HD auto rows_of(const QueriesAndKeys<S>& x, const RotationIndex& at) const {
    return x.of(at.sample, at.head, at.point, at.block * n_);
  }
};

}  // namespace lierope::cpu::LIEROPE_ISA
