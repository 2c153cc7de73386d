// Rotations held one pair a lane, applied to rows of q and k, forward and backward.
#pragma once
#include "lane_exponential.h"
#include "lane_places.h"
#include "panel_tokens.h"

namespace lierope::cpu::LIEROPE_ISA {

// out = R x, R as held (math::kLessIdentity).
template <class T, int N>
LIEROPE_HD void turn(const Vec<T>* r, const Vec<T>* x, Vec<T>* out) {
  LIEROPE_UNROLL
  for (int i = 0; i < N; ++i) out[i] = r[i * N] * x[0];
  LIEROPE_UNROLL
  for (int j = 1; j < N; ++j) {
    LIEROPE_UNROLL
    for (int i = 0; i < N; ++i) out[i] += r[i * N + j] * x[j];
  }
  if constexpr (math::kLessIdentity<N>) {
    LIEROPE_UNROLL
    for (int i = 0; i < N; ++i) out[i] += x[i];
  }
}

// w += g y^T - y g^T.
template <class T, int N>
LIEROPE_HD void add_wedge(const Vec<T>* g, const Vec<T>* y, Vec<T>* w) {
  LIEROPE_UNROLL
  for (int i = 0; i < N; ++i) {
    LIEROPE_UNROLL
    for (int j = i + 1; j < N; ++j) {
      Vec<T>& sum = w[math::Skew<N>::at(i, j)];
      sum = sum + g[i] * y[j] - g[j] * y[i];
    }
  }
}

// q or k of one argument or result: the features of the pairs in the lanes, in the rows of all
// sequences and of all heads that a pair turns.
template <class S, int N>
class LaneHeads {
  using T = Compute<std::remove_const_t<S>>;

 public:
  // heads: All of them, of which each pair turns as many as any other.
  LaneHeads(const Rows<S>& rows, const Tokens& shape, const Lie& lie, int64_t heads)
      : rows_(rows),
        shape_(shape),
        lie_(lie),
        heads_(heads / lie.heads),
        sequences_(TurnedRows(shape).sequences),
        places_(first(), lie, rows.batch, rows.token) {}

  void select(const PairGroup& group) {
    group_ = &group;
    const int64_t end_of_last = (lie_.heads - 1) * heads_ * rows_.head + shape_.head_dim;
    places_.select(group, end_of_last, [&](int64_t pair) {
      return pair / lie_.blocks * heads_ * rows_.head + pair % lie_.blocks * N;
    });
  }
  void set(const Step<T>& step, const Step<T>& next) { places_.set(step, next); }
  const LanePlaces<S, N>& places() const { return places_; }

  // Calls f(vector, of, ..) with the rows of this and of others like it, as places count them.
  template <class F, class... Others>
  LIEROPE_HD void each_row(F&& f, const Others&... others) const {
    for (int64_t b = 0; b < sequences_; ++b)
      for (int64_t h = 0; h < heads_; ++h)
        for (int m = 0; m < group_->vectors; ++m) f(m, row(b, h), others.row(b, h)...);
  }
  LIEROPE_HD int64_t row(int64_t sequence, int64_t head) const {
    return sequence * rows_.batch + head * rows_.head;
  }

  // Copies to y the features past the blocks of the heads that end in this group: now, while their
  // lines are in cache.
  template <class Storage>
  void copy_rest(const Step<T>& step, const LaneHeads<Storage, N>& y) const {
    const int64_t turned = lie_.blocks * N, end = group_->first + group_->vectors * group_->pairs;
    if (turned == shape_.head_dim) return;
    for (int64_t pair_head = group_->first / lie_.blocks; (pair_head + 1) * lie_.blocks <= end;
         ++pair_head)
      for (int s = 0; s < step.count; ++s)
        each_head(step.items[s], pair_head, [&](int64_t b, int64_t h, int64_t n) {
          copy_row(rows_.at(b, h, n), y.rows().at(b, h, n), turned, shape_.head_dim);
        });
  }
  const Rows<S>& rows() const { return rows_; }

 private:
  const Rows<S> rows_;
  const Tokens& shape_;
  const Lie& lie_;
  const int64_t heads_, sequences_;
  const PairGroup* group_ = nullptr;
  LanePlaces<S, N> places_;

  S* first() const { return rows_.at(0, 0, shape_.prefix); }
  template <class F>
  void each_head(int64_t item, int64_t pair_head, F&& f) const {
    const int64_t sample = item / lie_.points, token = shape_.prefix + item % lie_.points;
    for (int64_t b = sample; b < sample + sequences_; ++b)
      for (int64_t h = 0; h < heads_; ++h) f(b, pair_head * heads_ + h, token);
  }
};

// Calls f with whether all of these fill whole vectors, as a constant.
template <class F, class Places, class... More>
LIEROPE_HD void with_filled(F&& f, const Places& places, const More&... more) {
  if constexpr (Places::kMayFill) {
    if ((places.fill() && ... && more.fill())) return f(std::true_type());
  }
  f(std::false_type());
}

// y = R x in all rows.
template <bool filled, class Storage, int N, class T = Compute<Storage>>
LIEROPE_NOINLINE void rotate_heads(const Vec<T>* r, const LaneHeads<const Storage, N>& x,
                                   const LaneHeads<Storage, N>& y) {
  x.each_row(
      [&](int m, int64_t x_row, int64_t y_row) LIEROPE_INLINED {
        Vec<T> in[N], out[N];
        x.places().template prefetch<filled>(m, x_row);
        y.places().template prefetch<filled>(m, y_row);
        x.places().template load<filled>(m, x_row, in);
        turn<T, N>(r + m * N * N, in, out);
        y.places().template store<filled>(m, y_row, out);
      },
      y);
}

// x_grad = r y_grad, r = R^T; w += y_grad y^T - y y_grad^T.
template <bool filled, class Storage, int N, class T = Compute<Storage>>
LIEROPE_NOINLINE void rotate_heads_back(const Vec<T>* r, const LaneHeads<const Storage, N>& y,
                                        const LaneHeads<const Storage, N>& y_grad,
                                        const LaneHeads<Storage, N>& x_grad, Vec<T>* w) {
  y.each_row(
      [&](int m, int64_t y_row, int64_t grad_row, int64_t out_row) LIEROPE_INLINED {
        Vec<T> in[N], grad[N], out[N];
        y.places().template prefetch<filled>(m, y_row);
        y_grad.places().template prefetch<filled>(m, grad_row);
        x_grad.places().template prefetch<filled>(m, out_row);
        y_grad.places().template load<filled>(m, grad_row, grad);
        y.places().template load<filled>(m, y_row, in);
        add_wedge<T, N>(grad, in, w + m * math::kTriangle<N>);
        turn<T, N>(r + m * N * N, grad, out);
        x_grad.places().template store<filled>(m, out_row, out);
      },
      y_grad, x_grad);
}

}  // namespace lierope::cpu::LIEROPE_ISA
