// The rows of q and k that one rotation turns: gathered to arithmetic type, scattered back.
#pragma once
#include "../parallel.h"
#include "convert.h"
#include "rows.h"
#include "scratch.h"

namespace lierope::cpu::LIEROPE_ISA {

inline constexpr int64_t kTurnedAtOnce = 64;  // rows that a product takes together

// How many rows a rotation turns: of each sequence of the batch (or of the one that the positions
// belong to) some heads of q and some of k.
struct TurnedRows {
  int64_t q_each, k_each, sequences;
  bool per_sample;

  explicit TurnedRows(const Tokens& shape)
      : q_each(shape.q_heads / shape.rotation_heads),
        k_each(shape.k_heads / shape.rotation_heads),
        sequences(shape.per_sample ? 1 : shape.batch),
        per_sample(shape.per_sample) {}

  int64_t count() const { return (q_each + k_each) * sequences; }
};

// q and k of one argument or result: the rows that a rotation turns. For each sequence the heads of
// q, then those of k.
template <class Storage>
class QueriesAndKeys {
 public:
  QueriesAndKeys(const Tokens& shape, const Rows<Storage>& q, const Rows<Storage>& k)
      : q_(q), k_(k), turned_(shape), prefix_(shape.prefix), places_(turned_.count()) {
    Place* next = places_;
    for (int64_t s = 0; s < turned_.sequences; ++s) {
      for (int64_t h = 0; h < turned_.q_each; ++h) *next++ = {s * q.batch + h * q.head, true};
      for (int64_t h = 0; h < turned_.k_each; ++h) *next++ = {s * k.batch + h * k.head, false};
    }
  }

  struct Place {
    int64_t offset;  // from the first row of q or of k
    bool of_q;
  };
  struct Of {
    Storage *q, *k;  // first rows
    const Place* places;

    LIEROPE_HD Storage* operator[](int64_t r) const {
      return (places[r].of_q ? q : k) + places[r].offset;
    }
  };
  // The rows of a rotation, from a feature on.
  LIEROPE_HD Of of(int64_t sample, int64_t head, int64_t point, int64_t feature) const {
    const int64_t sequence = turned_.per_sample ? sample : 0, token = prefix_ + point;
    return {q_.at(sequence, head * turned_.q_each, token) + feature,
            k_.at(sequence, head * turned_.k_each, token) + feature, places_};
  }
  // How far row r of the next sample, and of the next point, is from that row.
  LIEROPE_HD int64_t sample_stride(int64_t r) const {
    return turned_.per_sample ? rows(r).batch : 0;
  }
  LIEROPE_HD int64_t point_stride(int64_t r) const { return rows(r).token; }

 private:
  const Rows<Storage> q_, k_;
  const TurnedRows turned_;
  const int64_t prefix_;
  Scratch<Place> places_;

  LIEROPE_HD const Rows<Storage>& rows(int64_t r) const { return places_[r].of_q ? q_ : k_; }
};

template <class Storage>
LIEROPE_HD void gather(const Storage* x, Compute<Storage>* y, int n) {
  constexpr int W = kLanes<Compute<Storage>>;
  int j = 0;
  for (; j + W <= n; j += W) store(y + j, load_wide(x + j));
  if (j < n) store(y + j, load_wide(x + j, n - j));
}

template <class Storage>
LIEROPE_HD void scatter(const Compute<Storage>* x, Storage* y, int n) {
  constexpr int W = kLanes<Compute<Storage>>;
  int j = 0;
  for (; j + W <= n; j += W) store_narrow(y + j, load(x + j));
  if (j < n) store_narrow(y + j, load(x + j), n - j);
}

// Copies what no rotation turns: prefix tokens, and the features from `turned` on of all others.
template <class Storage>
void copy_unturned(const Tokens& shape, const View& view, void* out, int64_t heads,
                   int64_t turned) {
  const Rows<const Storage> x = reads<Storage>(view);
  const Rows<Storage> y = writes<Storage>(shape, out, heads);
  const int64_t tokens = turned == shape.head_dim ? shape.prefix : shape.tokens;
  if (tokens == 0) return;
  parallel_for(shape.batch * heads, 1 + 10000 / (tokens + 1), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t b = row / heads, h = row % heads;
      for (int64_t n = 0; n < tokens; ++n)
        copy_row(x.at(b, h, n), y.at(b, h, n), n < shape.prefix ? 0 : turned, shape.head_dim);
    }
  });
}

}  // namespace lierope::cpu::LIEROPE_ISA
