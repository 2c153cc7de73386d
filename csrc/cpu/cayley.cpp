// cayley and its adjoint by block elimination; cayley_rotate by a product with P, or by a banded
// solve with tokens in the lanes.
#include "../params/cayley.h"

#include "../math/cayley.h"
#include "../parallel.h"
#include "panel_tokens.h"
#include "scratch.h"
#include "small_product.h"
#include "token_lanes.h"

namespace lierope::cpu::LIEROPE_ISA {
namespace {

constexpr int64_t kPivots = 8;  // eliminated together

// [I + S | S] -> [I | (I + S)^-1 S]; without pivoting, see math/cayley.h. P = I - 2 (I + S)^-1 S
// keeps small S, which 2 (I + S)^-1 - I would round away. Floats are eliminated as doubles: without
// pivoting errors grow with |S|, and once a step the time is nothing.
class Elimination {
 public:
  using T = double;
  explicit Elimination(int64_t n) : n_(n), stride_(round_up(2 * n) + kLanes<T>) {}
  int64_t size() const { return n_ * (stride_ + kPivots); }

  // Entries with |i - j| > bandwidth count as zero.
  template <class Storage>
  void fill(const Storage* s, int64_t bandwidth, T* work) const {
    std::memset(work, 0, size_t(n_ * stride_) * sizeof(T));
    for (int64_t i = 0; i < n_; ++i) {
      work[i * stride_ + i] = T(1);
      for (int64_t j = i + 1; j < n_ && j - i <= bandwidth; ++j) {
        const T value = s[i * n_ + j];
        work[i * stride_ + j] = work[i * stride_ + n_ + j] = value;
        work[j * stride_ + i] = work[j * stride_ + n_ + i] = -value;
      }
    }
  }
  void run(T* work) const {
    for (int64_t k = 0; k < n_; k += kPivots) {
      const int64_t end = smaller(k + kPivots, n_);
      reduce_block(work, k, end);
      eliminate(work, k, end, 0, k);
      eliminate(work, k, end, end, n_);
    }
  }
  T result(const T* work, int64_t i, int64_t j) const {
    return T(i == j) - 2 * work[i * stride_ + n_ + j];
  }
  template <class Storage>
  void write(const T* work, Storage* p) const {
    for (int64_t i = 0; i < n_; ++i)
      for (int64_t j = 0; j < n_; ++j) p[i * n_ + j] = Storage(result(work, i, j));
  }

 private:
  static int64_t round_up(int64_t count) { return (count + kLanes<T> - 1) / kLanes<T> * kLanes<T>; }

  // Rows [k, end): their square block becomes I (left unwritten), the columns after it are solved.
  void reduce_block(T* work, int64_t k, int64_t end) const {
    const int64_t columns = stride_ - kLanes<T>;
    for (int64_t pivot = k; pivot < end; ++pivot) {
      T* __restrict row = work + pivot * stride_;
      const T reciprocal = T(1) / row[pivot];
      for (int64_t j = pivot + 1; j < columns; ++j) row[j] *= reciprocal;
      for (int64_t i = k; i < end; ++i) {
        T* __restrict other = work + i * stride_;
        const T f = other[pivot];
        for (int64_t j = pivot + 1; i != pivot && j < columns; ++j) other[j] -= f * row[j];
      }
    }
  }
  // Rows [begin, finish) lose their part in columns [k, end).
  void eliminate(T* work, int64_t k, int64_t end, int64_t begin, int64_t finish) const {
    T* factors = work + n_ * stride_;
    for (int64_t i = begin; i < finish; ++i)
      for (int64_t j = k; j < end; ++j)
        factors[(i - begin) * kPivots + j - k] = -work[i * stride_ + j];
    small_product<T, true>({factors, kPivots, 1, work + k * stride_ + end, stride_,
                            work + begin * stride_ + end, stride_, end - k},
                           finish - begin, round_up(2 * n_ - end));
  }

  int64_t n_, stride_;
};

template <class T>
void forward(const CayleyParams& p) {
  const Elimination elimination(p.n);
  parallel_for(p.count, larger(1, 32768 / (p.n * p.n * p.n + 1)), [&](int64_t begin, int64_t end) {
    Scratch<double> work(elimination.size());
    for (int64_t i = begin; i < end; ++i) {
      elimination.fill(static_cast<const T*>(p.s) + i * p.n * p.n, p.n, work);
      elimination.run(work);
      elimination.write(work, static_cast<T*>(p.p) + i * p.n * p.n);
    }
  });
}

// With Q = I + P: Sbar = skew(-Q^T G Q^T / 2), since dP = -(1/2) Q dS Q. Out: 2 Sbar above the
// diagonal.
template <class T>
void backward_one(const T* p, const T* grad, T* out, int64_t n, T* work) {
  const int64_t width = (n + kLanes<T> - 1) / kLanes<T> * kLanes<T>, size = n * width;
  T *q = work, *transposed = work + size, *g = work + 2 * size, *first = work + 3 * size;
  std::memset(work, 0, size_t(3 * size) * sizeof(T));
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      const T value = p[i * n + j] + T(i == j);
      q[i * width + j] = transposed[j * width + i] = value;
      g[i * width + j] = grad[i * n + j];
    }
  }
  small_product<T, false>({q, 1, width, g, width, first, width, n}, n, width);
  T* both = q;
  small_product<T, false>({first, width, 1, transposed, width, both, width, n}, n, width);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < n; ++j)
      out[i * n + j] = j > i ? (both[j * width + i] - both[i * width + j]) * T(0.5) : T(0);
}

template <class T>
void backward(const CayleyBackwardParams& p) {
  const int64_t each = p.n * p.n;
  parallel_for(p.count, larger(1, 32768 / (each * p.n + 1)), [&](int64_t begin, int64_t end) {
    Scratch<T> work(4 * p.n * (p.n + kLanes<T>));
    for (int64_t i = begin; i < end; ++i)
      backward_one(static_cast<const T*>(p.p) + i * each, static_cast<const T*>(p.grad) + i * each,
                   static_cast<T*>(p.out) + i * each, p.n, static_cast<T*>(work));
  });
}

// Rows x P^T (or x P) of each head, P formed once: n operations a feature, in full vectors, are
// less than the 4 w of a solve whose steps wait for each other, until the band is a small part of
// n.
constexpr bool forms_matrix(int64_t n, int64_t width) { return n <= 4 * (width + 1); }

template <class Storage>
void rotate_by_product(const CayleyRotateParams& p) {
  using T = Compute<Storage>;
  const int64_t n = p.n, width = (n + kLanes<T> - 1) / kLanes<T> * kLanes<T>, each = n * width;
  Scratch<T> matrices(p.s_heads * each);
  const Elimination elimination(n);
  parallel_for(p.s_heads, larger(1, 32768 / (n * n * n)), [&](int64_t begin, int64_t end) {
    Scratch<double> work(elimination.size());
    for (int64_t r = begin; r < end; ++r) {
      elimination.fill(static_cast<const T*>(p.s) + r * n * n, p.bandwidth, work);
      elimination.run(work);
      T* right = matrices + r * each;
      for (int64_t i = 0; i < n; ++i)
        for (int64_t j = 0; j < width; ++j)
          right[i * width + j] = j >= n ? T(0)
                                        : T(p.transpose ? elimination.result(work, i, j)
                                                        : elimination.result(work, j, i));
    }
  });

  const auto x = Rows<const Storage>{static_cast<const Storage*>(p.x.data), p.x.stride_batch,
                                     p.x.stride_head, p.x.stride_token};
  const int64_t tiles = (p.tokens + kTurnedAtOnce - 1) / kTurnedAtOnce;
  const int64_t grain = larger(1, 65536 / (kTurnedAtOnce * n));
  parallel_for(p.batch * p.heads * tiles, grain, [&](int64_t begin, int64_t end) {
    Scratch<T> in(kTurnedAtOnce * width), out(kTurnedAtOnce * width);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t row = item / tiles, h = row % p.heads, first = item % tiles * kTurnedAtOnce;
      const int64_t count = smaller(kTurnedAtOnce, p.tokens - first);
      const Storage* rows = x.at(row / p.heads, h, first);
      const T* matrix = matrices + h * p.s_heads / p.heads * each;
      Storage* y = static_cast<Storage*>(p.out) + (row * p.tokens + first) * n;
      if constexpr (std::is_same_v<Storage, T>) {
        if (width == n) {
          small_product<T, false>({rows, p.x.stride_token, 1, matrix, width, y, n, n}, count, n);
          continue;
        }
      }
      for (int64_t t = 0; t < count; ++t)
        gather(rows + t * p.x.stride_token, in + t * width, int(n));
      small_product<T, false>({in, width, 1, matrix, width, out, width, n}, count, width);
      for (int64_t t = 0; t < count; ++t) scatter(out + t * width, y + t * n, int(n));
    }
  });
}

// Consecutive tokens of one head, and how many follow them.
template <class Storage>
struct Strip {
  const Storage* x;
  Storage* y;
  int64_t tokens, after;
};

template <class Storage, int V>
void solve_strip(const CayleyRotateParams& p, const math::Band<Compute<Storage>>& band,
                 const Strip<Storage>& strip, Vec<Compute<Storage>>* work) {
  using T = Compute<Storage>;
  constexpr int L = kLanes<T>;
  const int64_t stride = p.x.stride_token, n = p.n;
  Vec<T>* solved = work + (n + L) * V;
  for (int v = 0; v < V; ++v)
    to_lanes(strip.x + v * L * stride, stride, smaller(L, strip.tokens - v * L), n, work + v, V);
  for (int64_t t = 0; t < strip.tokens; ++t) {
    prefetch_row(strip.y + t * n, n);
    if (t < strip.after) prefetch_row(strip.x + (strip.tokens + t) * stride, n);
  }
  math::cayley_solve<V>(band, work, solved);
  for (int v = 0; v < V; ++v)
    from_lanes(solved + v, strip.y + v * L * n, n, smaller(L, strip.tokens - v * L), n, V);
}

template <class Storage>
void rotate_by_solve(const CayleyRotateParams& p) {
  using T = Compute<Storage>;
  constexpr int L = kLanes<T>, V = 4;
  const int64_t width = smaller(p.bandwidth, p.n - 1), band_size = p.n * (2 * width + 1);
  Scratch<T> factors(p.s_heads * band_size);
  auto band = [&](int64_t r) { return math::Band<T>{factors + r * band_size, p.n, width}; };
  parallel_for(p.s_heads, larger(1, 32768 / (p.n * (width * width + 1))),
               [&](int64_t begin, int64_t end) {
                 for (int64_t r = begin; r < end; ++r) {
                   math::fill_band(band(r), static_cast<const T*>(p.s) + r * p.n * p.n,
                                   p.transpose ? T(-1) : T(1));
                   math::factor_band(band(r));
                 }
               });

  const auto x = Rows<const Storage>{static_cast<const Storage*>(p.x.data), p.x.stride_batch,
                                     p.x.stride_head, p.x.stride_token};
  const int64_t tile = V * L, tiles = (p.tokens + tile - 1) / tile;
  const int64_t grain = larger(1, 65536 / (tile * p.n * (width + 4)));
  parallel_for(p.batch * p.heads * tiles, grain, [&](int64_t begin, int64_t end) {
    Scratch<Vec<T>> work(2 * (p.n + L) * V);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t row = item / tiles, h = row % p.heads, first = item % tiles * tile;
      const auto factored = band(h * p.s_heads / p.heads);
      const int64_t last = smaller(first + tile, p.tokens);
      auto strip = [&](int64_t n, int64_t tokens) {
        return Strip<Storage>{x.at(row / p.heads, h, n),
                              static_cast<Storage*>(p.out) + (row * p.tokens + n) * p.n, tokens,
                              p.tokens - n - tokens};
      };
      if (last - first > (V - 1) * L) {
        solve_strip<Storage, V>(p, factored, strip(first, last - first), work);
        continue;
      }
      for (int64_t n = first; n < last; n += L)
        solve_strip<Storage, 1>(p, factored, strip(n, smaller(L, last - n)), work);
    }
  });
}

}  // namespace

void cayley(const CayleyParams& p);
void cayley(const CayleyParams& p) { p.is_double ? forward<double>(p) : forward<float>(p); }

void cayley_backward(const CayleyBackwardParams& p);
void cayley_backward(const CayleyBackwardParams& p) {
  p.is_double ? backward<double>(p) : backward<float>(p);
}

void cayley_rotate(const CayleyRotateParams& p);
void cayley_rotate(const CayleyRotateParams& p) {
  if (p.n == 0) return;
  with_storage(p.dtype, [&](auto element) {
    if (forms_matrix(p.n, p.bandwidth))
      rotate_by_product<decltype(element)>(p);
    else
      rotate_by_solve<decltype(element)>(p);
  });
}

}  // namespace lierope::cpu::LIEROPE_ISA
