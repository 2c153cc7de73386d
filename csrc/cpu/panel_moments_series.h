// The series of all positions of a (head, block) at once, from their moments: see panel_moments.h.
#pragma once
#include "panel_moments.h"

namespace lierope::cpu::LIEROPE_ISA {

// Makes the gradient of the generators of one (head, block) after another; sign as in a panel's
// a = sign A.
template <class T, int sign>
class MomentSeries {
 public:
  using Y = RowLayout<T>;

  MomentSeries(const Lie& lie, const MomentsPlan<T>& plan)
      : dims_(lie.dims),
        blocks_(lie.blocks),
        plan_(plan),
        panel_(int(lie.block_size)),
        generators_(lie, panel_.shape),
        units_(lie),
        unit_(lie.dims),
        words_(lie.dims * generators_.size()) {}

  // `packed` becomes the gradient (dims, n(n-1)/2) from the moments, which are overwritten.
  void write(int64_t pair, T* moments, T* packed) {
    select(pair);
    const MultiIndices& indices = plan_.indices;
    constexpr int K = MomentsPlan<T>::kDegree;
    const T last = Panel<Y>::coefficient(K);
    for (int64_t i = indices.first(K + 1); i < indices.count(); ++i)
      for (int64_t e = 0; e < plan_.lower.elements; ++e) moment(moments, i)[e] *= last;
    for (int k = K; k > 0; --k)
      for (int64_t i = indices.first(k); i < indices.first(k + 1); ++i) {
        for (int64_t d = 0; d < dims_; ++d) add_product(moment(moments, indices.times(i, d)), d);
        add_commutators(Panel<Y>::coefficient(k - 1), moment(moments, i));
      }
    for (int64_t c = 0; c < dims_; ++c) packed = write_generator(c, moment(moments, c), packed);
  }

 private:
  const int64_t dims_, blocks_;
  const MomentsPlan<T>& plan_;
  Panel<Y> panel_;
  LieBlock<Y> generators_;
  MomentUnits<T> units_;
  Scratch<T> unit_, words_;  // the B_d, whole

  T* moment(T* moments, int64_t i) const { return moments + i * plan_.lower.stride; }

  void select(int64_t pair) {
    generators_.select(pair / blocks_, pair % blocks_);
    units_.select(plan_, generators_, panel_);
    for (int64_t d = 0; d < dims_; ++d) {
      for (int64_t c = 0; c < dims_; ++c) unit_[c] = c == d ? units_.inverse(d) : T(0);
      generators_.template contract<sign>(unit_, words_ + d * generators_.size());
    }
  }
  // spare (+)= F B_d; [B, F] = (F B)^T - F B, of which the transposition waits for the sum.
  void add_product(const T* f, int64_t d) {
    each_lower(panel_.shape, [&f, to = panel_.w, stride = panel_.shape.stride](int i, int j) {
      store(to + int64_t(i) * stride + j, load(f));
      f += kLanes<T>;
    });
    const int stride = panel_.shape.stride;
    const Factors<Y> factors = panel_.factors(panel_.w, words_ + d * generators_.size(), stride);
    if (d == 0)
      multiply<Y, Left::skew, Part::all>(factors, panel_.into(panel_.spare));
    else
      multiply<Y, Left::skew, Part::all>(
          factors, StoreSum<Y, 1>{panel_.spare, stride, {panel_.spare}, {T(1)}});
  }
  // f = q f + the commutators.
  void add_commutators(T q, T* f) {
    with_transpose<Y>(panel_.shape, panel_.spare, [&](int i, int j, Vec<T> p, Vec<T> t) {
      if (i >= panel_.shape.rows) return;
      T* to = f + plan_.lower.row(i) + j;
      store(to, q * load(to) + (t - p));
    });
  }
  // As LieGradients::write.
  T* write_generator(int64_t c, const T* f, T* packed) const {
    const T weight = -2 * units_.inverse(c);
    for (int i = 0; i < panel_.shape.n; ++i)
      for (int j = i + 1; j < panel_.shape.n; ++j) *packed++ = weight * f[plan_.lower.row(j) + i];
    return packed;
  }
};

// The first of each pair's moments (pairs, chunks, size) becomes the sum of those that there are;
// there[pair * chunks] whether there is one.
template <class T>
void sum_moments(const MomentsPlan<T>& plan, int64_t pairs, int64_t chunks, T* moments,
                 bool* there) {
  const int64_t stride = plan.lower.stride;
  parallel_for(pairs * plan.terms, 1 + 100000 / (stride * chunks), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t first = row / plan.terms * chunks;
      T* y = moments + first * plan.size + row % plan.terms * stride;
      bool empty = !there[first];
      for (int64_t k = 1; k < chunks; ++k) {
        if (!there[first + k]) continue;
        const T* x = y + k * plan.size;
        if (empty)
          std::memcpy(y, x, size_t(stride) * sizeof(T));
        else
          for (int64_t e = 0; e < stride; ++e) y[e] += x[e];
        empty = false;
      }
    }
  });
  for (int64_t pair = 0; pair < pairs; ++pair)
    for (int64_t k = 1; k < chunks; ++k) there[pair * chunks] |= there[pair * chunks + k];
}

}  // namespace lierope::cpu::LIEROPE_ISA
