// The rows of q and k that one rotation turns: gathered to arithmetic type, scattered back.
#pragma once
#include "../parallel.h"
#include "convert.h"
#include "rows.h"

namespace lierope::cpu::LIEROPE_ISA {

inline constexpr int64_t kTurnedAtOnce = 64;  // rows that a product takes together

// Row r of a rotation head and token: for each sequence of the batch (or the one that the positions
// belong to) its q heads, then its k heads.
struct TurnedRows {
  int64_t q_each, k_each, sequences;
  bool per_sample;

  explicit TurnedRows(const Tokens& shape)
      : q_each(shape.q_heads / shape.rotation_heads),
        k_each(shape.k_heads / shape.rotation_heads),
        sequences(shape.per_sample ? 1 : shape.batch),
        per_sample(shape.per_sample) {}

  int64_t count() const { return (q_each + k_each) * sequences; }

  bool is_query(int64_t r) const { return r % (q_each + k_each) < q_each; }

  // The address of row r in q or k.
  template <class Storage>
  LIEROPE_HD Storage* at(const Rows<Storage>& q, const Rows<Storage>& k, int64_t r, int64_t sample,
                         int64_t head, int64_t token) const {
    const int64_t each = q_each + k_each, h = r % each;
    const int64_t sequence = per_sample ? sample : r / each;
    if (h < q_each) return q.at(sequence, head * q_each + h, token);
    return k.at(sequence, head * k_each + h - q_each, token);
  }
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
