// cayley and its adjoint.
#include "../params/cayley.h"

#include "../parallel.h"
#include "cayley_lanes.h"
#include "gauss_jordan.h"
#include "panel_tokens.h"
#include "scratch.h"

namespace lierope::cpu::LIEROPE_ISA {
namespace {

template <class T>
void forward(const CayleyParams& p) {
  const int64_t each = p.n * p.n;
  const T* s = static_cast<const T*>(p.s);
  T* out = static_cast<T*>(p.p);
  if (p.n <= kCayleyLanes) {
    constexpr int L = kLanes<T>;
    parallel_for((p.count + L - 1) / L, larger(1, 32768 / (each * p.n * L)),
                 [&](int64_t begin, int64_t end) {
                   Scratch<Vec<T>> work(2 * each + L);
                   for (int64_t i = begin * L; i < smaller(end * L, p.count); i += L)
                     cayley_in_lanes(s + i * each, out + i * each, smaller(L, p.count - i), p.n,
                                     static_cast<Vec<T>*>(work));
                 });
    return;
  }
  const GaussJordan inverse(p.n);
  parallel_for(p.count, larger(1, 32768 / (each * p.n)), [&](int64_t begin, int64_t end) {
    Scratch<double> work(inverse.size());
    for (int64_t i = begin; i < end; ++i) {
      inverse.fill(s + i * each, p.n, work);
      Ahead ahead({}, {out + i * each, each}, {s + (i + 1) * each, i + 1 < end ? each : 0},
                  inverse.steps());
      inverse.run(work, ahead);
      inverse.write(work, out + i * each, p.n);
    }
  });
}

// Half the difference of m and its transpose above the diagonal, 0 elsewhere. m: rows of `width`,
// as many as columns; out: (n, n).
template <class T>
void write_skew(const T* m, int64_t width, T* out, int64_t n) {
  constexpr int L = kLanes<T>;
  for (int64_t i = 0; i < n; i += L) {
    const int64_t rows = smaller(L, n - i);
    for (int64_t r = 0; r < rows; ++r) std::memset(out + (i + r) * n, 0, size_t(i) * sizeof(T));
    for (int64_t j = i; j < n; j += L) {
      Vec<T> square[L];
      LIEROPE_UNROLL
      for (int r = 0; r < L; ++r) square[r] = load<T>(m + (j + r) * width + i);
      transpose<T>(square);
      LIEROPE_UNROLL
      for (int r = 0; r < L; ++r)
        square[r] = T(0.5) * (load<T>(m + (i + r) * width + j) - square[r]);
      for (int r = 0; i == j && r < L; ++r)
        for (int c = 0; c <= r; ++c) square[r][c] = T(0);
      for (int64_t r = 0; r < rows; ++r)
        store_narrow(out + (i + r) * n + j, square[r], smaller(L, n - j));
    }
  }
}

constexpr int64_t kRowsAtOnce = 16;  // of a product, before memory is prefetched again
constexpr int64_t backward_turns(int64_t n) { return 2 * ((n + kRowsAtOnce - 1) / kRowsAtOnce); }

// With Q = I + P: Sbar = skew(-Q^T G Q^T / 2), since dP = -(1/2) Q dS Q. Out: 2 Sbar above the
// diagonal, from M = Q (G^T Q), the transpose of that product, whose left factors are read as they
// lie. `ahead` is asked for within backward_turns(n) steps.
template <class T>
void backward_one(const T* p, const T* grad, T* out, int64_t n, T* work, Ahead& ahead) {
  const int64_t width = (n + kLanes<T> - 1) / kLanes<T> * kLanes<T>, size = width * width;
  T *q = work, *first = work + size, *both = work + 2 * size;
  for (int64_t i = 0; i < n; ++i) {
    gather(p + i * n, q + i * width, int(n));
    q[i * width + i] += T(1);
  }
  for (int64_t i = 0; i < n; i += kRowsAtOnce) {
    ahead.some_lines();
    small_product<T, false>({grad + i, 1, n, q, width, first + i * width, width, n},
                            smaller(kRowsAtOnce, n - i), width);
  }
  for (int64_t i = 0; i < n; i += kRowsAtOnce) {
    ahead.some_lines();
    small_product<T, false>({q + i * width, width, 1, first, width, both + i * width, width, n},
                            smaller(kRowsAtOnce, n - i), width);
  }
  write_skew(both, width, out, n);
}

template <class T>
void backward(const CayleyBackwardParams& p) {
  const int64_t each = p.n * p.n;
  const T *matrix = static_cast<const T*>(p.p), *grad = static_cast<const T*>(p.grad);
  T* out = static_cast<T*>(p.out);
  constexpr int L = kLanes<T>;
  if (p.n <= kCayleyLanes) {
    parallel_for((p.count + L - 1) / L, larger(1, 32768 / (each * p.n * L)),
                 [&](int64_t begin, int64_t end) {
                   Scratch<Vec<T>> work(4 * (each + L));
                   for (int64_t i = begin * L; i < smaller(end * L, p.count); i += L)
                     cayley_backward_in_lanes(matrix + i * each, grad + i * each, out + i * each,
                                              smaller(L, p.count - i), p.n,
                                              static_cast<Vec<T>*>(work));
                 });
    return;
  }
  parallel_for(p.count, larger(1, 32768 / (each * p.n)), [&](int64_t begin, int64_t end) {
    Scratch<T> work(3 * (p.n + L) * (p.n + L));
    for (int64_t i = begin; i < end; ++i) {
      const int64_t next = (i + 1) * each, left = i + 1 < end ? each : 0;
      Ahead ahead({grad + next, left}, {out + i * each, each}, {matrix + next, left},
                  backward_turns(p.n));
      backward_one(matrix + i * each, grad + i * each, out + i * each, p.n, static_cast<T*>(work),
                   ahead);
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

}  // namespace lierope::cpu::LIEROPE_ISA
