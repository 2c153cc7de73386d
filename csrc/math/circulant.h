// exp of a skew circulant matrix by its spectrum: irfft(e^{i t} rfft(x)), and its adjoint.
#pragma once
#include "fft.h"

namespace lierope::math {
inline namespace LIEROPE_ISA {

// A block of b features. Even b: (x_0, x_1), (x_2, x_3), ... are h = b / 2 complex numbers whose
// FFT Z yields that of x (mode m and h - m together, with u = e^{-2 pi i / b}):
//   2 X_m = E + u^m O, 2 conj X_{h-m} = E - u^m O, E = Z_m + conj Z_{h-m}, O = -i (Z_m - conj
//   Z_{h-m}).
// Odd b: features are complex numbers without imaginary part. Modes 0 and b/2 stay as they are.
template <class T>
struct CirculantPlan {
  FftPlan<T> fft;    // of length b / 2, or b
  const T* unit;     // u^m, m = 0 .. h / 2
  int64_t b, modes;  // modes: (b - 1) / 2
  T scale;           // that the cosines and sines carry: the inverse's 1 / n and the halves above
};

// Cosine and sine of every mode, times plan.scale; one number, or one vector of lanes, each.
template <class S>
struct Phases {
  const S* data;
  LIEROPE_HD const S& cosine(int64_t mode) const { return data[2 * (mode - 1)]; }
  LIEROPE_HD const S& sine(int64_t mode) const { return data[2 * (mode - 1) + 1]; }
};

// 2 X_m and 2 conj X_{h-m}.
template <class S>
struct ModePair {
  Complex<S> low, high;
};

template <class S, class T>
LIEROPE_HD ModePair<S> split(const CirculantPlan<T>& plan, const S* z, int64_t m) {
  const S* a = z + 2 * plan.fft.position[m];
  const S* c = z + 2 * plan.fft.position[plan.fft.n - m];
  const Complex<S> e{a[0] + c[0], a[1] - c[1]}, o{a[1] + c[1], c[0] - a[0]};
  const Complex<S> turned = times<false>(o, plan.unit[2 * m], plan.unit[2 * m + 1]);
  return {e + turned, e - turned};
}
template <class S, class T>
LIEROPE_HD void merge(const CirculantPlan<T>& plan, S* z, int64_t m, const ModePair<S>& pair) {
  S* a = z + 2 * plan.fft.position[m];
  S* c = z + 2 * plan.fft.position[plan.fft.n - m];
  const Complex<S> e = pair.low + pair.high;
  const Complex<S> o = times<true>(pair.low - pair.high, plan.unit[2 * m], plan.unit[2 * m + 1]);
  a[0] = e.re - o.im;
  a[1] = e.im + o.re;
  c[0] = e.re + o.im;
  c[1] = o.re - e.im;
}

template <class S, class T>
LIEROPE_HD void scale_mode(S* z, const CirculantPlan<T>& plan, T factor) {
  z[2 * plan.fft.position[0]] = z[2 * plan.fft.position[0]] * factor;
  z[2 * plan.fft.position[0] + 1] = z[2 * plan.fft.position[0] + 1] * factor;
}

// In place, z after fft_forward: multiplies mode m by e^{i t_m}.
template <class S, class T>
inline void turn_spectrum(const CirculantPlan<T>& plan, const Phases<S>& phases, S* z) {
  const int64_t n = plan.fft.n;
  if (plan.b % 2 != 0) {
    for (int64_t m = 1; m <= plan.modes; ++m) {
      S* a = z + 2 * plan.fft.position[m];
      S* c = z + 2 * plan.fft.position[n - m];
      const Complex<S> y = times<false>(Complex<S>{a[0], a[1]}, phases.cosine(m), phases.sine(m));
      a[0] = c[0] = y.re;
      a[1] = y.im;
      c[1] = -y.im;
    }
    return scale_mode(z, plan, plan.scale);
  }
  for (int64_t m = 1; 2 * m < n; ++m) {
    const ModePair<S> x = split(plan, z, m);
    merge<S>(plan, z, m,
             {times<false>(x.low, phases.cosine(m), phases.sine(m)),
              times<true>(x.high, phases.cosine(n - m), phases.sine(n - m))});
  }
  if (n % 2 == 0) {  // X_{h/2} = conj Z_{h/2}
    S* a = z + 2 * plan.fft.position[n / 2];
    const Complex<S> y =
        times<true>(Complex<S>{a[0] * T(4), a[1] * T(4)}, phases.cosine(n / 2), phases.sine(n / 2));
    a[0] = y.re;
    a[1] = y.im;
  }
  scale_mode(z, plan, 4 * plan.scale);
}

// -Im(conj(h) x)
template <class S>
LIEROPE_HD S angle_term(const Complex<S>& h, const Complex<S>& x) {
  return h.im * x.re - h.re * x.im;
}

// In place, g (the gradient) and y = e^{i t} x after fft_forward: g_m <- e^{-i t_m} g_m; adds
// dL/dt_m = -(2 / b) Im(conj(g_m) y_m) to sums.
template <class S, class T>
inline void turn_spectrum_adjoint(const CirculantPlan<T>& plan, const Phases<S>& phases, S* g,
                                  const S* y, S* sums) {
  const int64_t n = plan.fft.n;
  if (plan.b % 2 != 0) {
    for (int64_t m = 1; m <= plan.modes; ++m) {
      const S* after = y + 2 * plan.fft.position[m];
      S* a = g + 2 * plan.fft.position[m];
      S* c = g + 2 * plan.fft.position[n - m];
      const Complex<S> grad{a[0], a[1]};
      const Complex<S> turned = times<true>(grad, phases.cosine(m), phases.sine(m));
      sums[m - 1] = sums[m - 1] + 2 * plan.scale * angle_term(grad, Complex<S>{after[0], after[1]});
      a[0] = c[0] = turned.re;
      a[1] = turned.im;
      c[1] = -turned.im;
    }
    return scale_mode(g, plan, plan.scale);
  }
  for (int64_t m = 1; 2 * m < n; ++m) {
    const ModePair<S> after = split(plan, y, m), grad = split(plan, static_cast<const S*>(g), m);
    S &low = sums[m - 1], &high = sums[n - m - 1];
    low = low + plan.scale * angle_term(grad.low, after.low);
    high = high - plan.scale * angle_term(grad.high, after.high);  // both are conjugates
    merge<S>(plan, g, m,
             {times<true>(grad.low, phases.cosine(m), phases.sine(m)),
              times<false>(grad.high, phases.cosine(n - m), phases.sine(n - m))});
  }
  if (n % 2 == 0) {
    const S* after = y + 2 * plan.fft.position[n / 2];
    S *a = g + 2 * plan.fft.position[n / 2], &sum = sums[n / 2 - 1];
    const Complex<S> grad{a[0] * T(4), a[1] * T(4)};
    sum = sum - plan.scale * angle_term(grad, Complex<S>{after[0], after[1]});
    const Complex<S> turned = times<false>(grad, phases.cosine(n / 2), phases.sine(n / 2));
    a[0] = turned.re;
    a[1] = turned.im;
  }
  scale_mode(g, plan, 4 * plan.scale);
}

}  // namespace LIEROPE_ISA
}  // namespace lierope::math
