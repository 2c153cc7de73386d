// Passes over one panel matrix: mirrors, transposes, norms, copies from and to packed rows.
#pragma once
#include "panel_layout.h"

namespace lierope::cpu::LIEROPE_ISA {

// f(row, column) for each vector of the lower part.
template <class Y, class F>
LIEROPE_HD void each_lower(Shape<Y> s, F&& f) {
  for (int i = 0; i < s.rows; ++i) {
    const int end = band_end<Y>(i, s.columns);
    for (int j = 0; j < end; j += Y::kWidth) f(i, j);
  }
}

template <class V>
struct Both {
  V lower, upper;
};

// Writes a full matrix: f(row, column) of the lower part gives the element there and the one that
// is mirrored into the upper part; the diagonal takes their mean plus `diagonal`.
template <class Y, class F>
LIEROPE_HD void fill(Shape<Y> s, typename Y::Element* out, int stride, typename Y::Number diagonal,
                     F&& f) {
  using V = typename Y::Vector;
  using T = typename Y::Number;
  constexpr int W = Y::kWidth;
  for (int i = 0; i < s.columns; i += W) {
    for (int j = 0; j <= i; j += W) {
      V lower[W], upper[W];
      LIEROPE_UNROLL
      for (int r = 0; r < W; ++r) {
        const Both<V> both = f(i + r, j);
        lower[r] = both.lower;
        upper[r] = both.upper;
      }
      if (i == j) {
        V mean[W];
        LIEROPE_UNROLL
        for (int r = 0; r < W; ++r) mean[r] = T(0.5) * (lower[r] + upper[r]) + diagonal;
        transpose_tile<Y>(upper);
        if constexpr (Y::kLanewise) {
          lower[0] = mean[0];
        } else {
          Mask<T> lane;
          LIEROPE_UNROLL
          for (int l = 0; l < W; ++l) lane[l] = l;
          LIEROPE_UNROLL
          for (int r = 0; r < W; ++r)
            lower[r] = lane < r ? lower[r] : (lane > r ? upper[r] : mean[r]);
        }
        LIEROPE_UNROLL
        for (int r = 0; r < W; ++r) put<Y>(out + int64_t(i + r) * stride + j, lower[r]);
      } else {
        transpose_tile<Y>(upper);
        LIEROPE_UNROLL
        for (int r = 0; r < W; ++r) {
          put<Y>(out + int64_t(i + r) * stride + j, lower[r]);
          put<Y>(out + int64_t(j + r) * stride + i, upper[r]);
        }
      }
    }
  }
}

// x <- scale * x, completed from its lower part to a symmetric (sign 1) or skew (sign -1) matrix.
template <class Y>
LIEROPE_HD void mirror(Shape<Y> s, typename Y::Element* x, typename Y::Element scale, int sign) {
  using V = typename Y::Vector;
  using T = typename Y::Number;
  fill<Y>(s, x, s.stride, T(0), [&](int i, int j) {
    const V v = scale * get<Y>(x + int64_t(i) * s.stride + j);
    return Both<V>{v, T(sign) * v};
  });
}

// f(row, column, p, transposed p) for each vector of the lower part of a full matrix p.
template <class Y, class F>
LIEROPE_HD void with_transpose(Shape<Y> s, const typename Y::Element* p, F&& f) {
  using V = typename Y::Vector;
  constexpr int W = Y::kWidth;
  for (int i = 0; i < s.columns; i += W) {
    const int end = band_end<Y>(i, s.columns);
    for (int j = 0; j < end; j += W) {
      V t[W];
      LIEROPE_UNROLL
      for (int r = 0; r < W; ++r) t[r] = get<Y>(p + int64_t(j + r) * s.stride + i);
      transpose_tile<Y>(t);
      LIEROPE_UNROLL
      for (int r = 0; r < W; ++r) {
        f(i + r, j, get<Y>(p + int64_t(i + r) * s.stride + j), t[r]);
      }
    }
  }
}

// The sum over what a vector holds of one matrix.
template <class Y>
LIEROPE_HD typename Y::Element across(typename Y::Vector v) {
  if constexpr (Y::kLanewise) {
    return v;
  } else {
    typename Y::Number sum = 0;
    for (int l = 0; l < Y::kWidth; ++l) sum += v[l];
    return sum;
  }
}

// |m|_F^2 / 2 of a symmetric matrix from its lower part, whose bands hold the diagonal tiles whole.
template <class Y>
LIEROPE_HD typename Y::Element half_square(Shape<Y> s, const typename Y::Element* m) {
  using V = typename Y::Vector;
  using T = typename Y::Number;
  V sum[kRowStep] = {};
  for (int i = 0; i < s.rows; i += kRowStep) {
    const int end = band_end<Y>(i, s.columns), band = i / kBand<Y> * kBand<Y>;
    for (int j = 0; j < end; j += Y::kWidth) {
      const T weight = j < band ? T(1) : T(0.5);
      LIEROPE_UNROLL
      for (int r = 0; r < kRowStep; ++r) {
        const V v = get<Y>(m + int64_t(i + r) * s.stride + j);
        sum[r] += weight * v * v;
      }
    }
  }
  return across<Y>((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

// n elements from x to y; rows of at least one vector end with an overlapping one instead of a
// tail.
template <class T>
LIEROPE_HD void copy_elements(const T* x, T* y, int n) {
  constexpr int W = kLanes<T>;
  if (n < W) {
    std::memcpy(y, x, size_t(n) * sizeof(T));
    return;
  }
  for (int j = 0; j + W < n; j += W) store(y + j, load(x + j));
  store(y + n - W, load(x + n - W));
}

template <class T>
LIEROPE_HD void copy_matrix(const T* x, int64_t x_stride, T* y, int64_t y_stride, int n) {
  for (int i = 0; i < n; ++i) copy_elements(x + i * x_stride, y + i * y_stride, n);
}

// out = the skew matrix whose strict upper triangle is that of x; x may be out.
template <class Y>
LIEROPE_HD void skew_from_upper(Shape<Y> s, const typename Y::Element* x, int64_t x_stride,
                                typename Y::Element* out) {
  using V = typename Y::Vector;
  constexpr int W = Y::kWidth;
  for (int i = 0; i < s.columns; i += W) {
    for (int j = 0; j <= i; j += W) {
      V upper[W], lower[W];
      LIEROPE_UNROLL
      for (int r = 0; r < W; ++r) lower[r] = upper[r] = get<Y>(x + (j + r) * x_stride + i);
      transpose_tile<Y>(lower);
      if (i == j) {
        if constexpr (Y::kLanewise) {
          lower[0] = V{};
        } else {
          Mask<typename Y::Number> lane;
          LIEROPE_UNROLL
          for (int l = 0; l < W; ++l) lane[l] = l;
          LIEROPE_UNROLL
          for (int r = 0; r < W; ++r) lower[r] = lane < r ? -lower[r] : (lane > r ? upper[r] : V{});
        }
        LIEROPE_UNROLL
        for (int r = 0; r < W; ++r) put<Y>(out + int64_t(i + r) * s.stride + i, lower[r]);
      } else {
        LIEROPE_UNROLL
        for (int r = 0; r < W; ++r) {
          put<Y>(out + int64_t(i + r) * s.stride + j, -lower[r]);
          put<Y>(out + int64_t(j + r) * s.stride + i, upper[r]);
        }
      }
    }
  }
}

// out = -2 x above the diagonal, mirrored from the lower part of x, and zero elsewhere.
template <class Y>
LIEROPE_HD void upper_gradient(Shape<Y> s, const typename Y::Element* x, typename Y::Element* out,
                               int stride) {
  using V = typename Y::Vector;
  fill<Y>(s, out, stride, 0, [&](int i, int j) {
    return Both<V>{V{}, typename Y::Number(-2) * get<Y>(x + int64_t(i) * s.stride + j)};
  });
  for (int i = 0; i < s.n; ++i) out[int64_t(i) * stride + i] = typename Y::Element{};
}

}  // namespace lierope::cpu::LIEROPE_ISA
